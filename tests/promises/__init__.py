"""One file per promise that Penstock makes: what the README says, as tests that can fail."""
