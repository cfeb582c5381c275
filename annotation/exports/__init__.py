"""What leaves the studio: snapshots, what differs between two of them, and exports in other tools' forms."""
