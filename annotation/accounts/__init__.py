"""Who is asking: accounts, signing in, and what each role may do."""
