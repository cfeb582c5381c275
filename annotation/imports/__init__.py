"""What comes in from elsewhere: FairFace and published pairs, row by row, bad rows listed."""
