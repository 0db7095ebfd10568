"""Small applications, for servers that the tests start."""
