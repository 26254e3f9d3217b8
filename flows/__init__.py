"""Orchestration: grids, their stages, the flow that runs them, and the command line."""

from flows.settings import prepare

prepare()  # before anything in here can import Prefect
