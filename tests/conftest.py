"""How all tests run: shapes checked, no network, the same cases every time."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

install_import_hook("circuits", "beartype.beartype")  # every shape in a signature is checked

# before torch: threads that wait must not keep others from the cores they wait for
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# the same cases in every run, so that red means a fault in the change; `make fuzz` draws new ones;
# in neither is a case a fault because others have the cores
patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", patiently, derandomize=True)
settings.register_profile("fuzz", patiently, print_blob=True)
settings.load_profile(os.environ.get("CIRCUIT_GRID_TEST_PROFILE", "repeatable"))
