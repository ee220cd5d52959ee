"""Code shared by endpoints: validation, access control, and responses."""
