"""The commands, by what they are for; `flows.cli` gathers them. Each imports what it needs late."""
