"""Pure metrics: numpy in, numbers out, no input or output."""
