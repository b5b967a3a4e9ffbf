"""Commands: parse, load the configuration, make one library call."""
