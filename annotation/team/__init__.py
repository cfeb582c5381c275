"""The team at work: how sure its reviewers are, what remains wrong in the data, how far it has come."""
