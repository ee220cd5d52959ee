"""Small programs that do the least that the lab has to: what it is measured against."""
