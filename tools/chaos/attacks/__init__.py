"""The fault suite's attacks: whether others are still answered, and memory stays, while somebody means harm."""
