"""The command `aunet`. Commands that train load Lightning; the others do not."""
