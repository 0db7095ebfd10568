"""What the tests are made with: real servers, real clients, deadlines instead of sleeps."""
