"""What happens in the lab, as it happens: for everybody who watches."""
