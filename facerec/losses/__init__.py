"""Classification heads and auxiliary losses."""
