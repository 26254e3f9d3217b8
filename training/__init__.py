"""How the bundled assets are made; not part of the distribution."""
