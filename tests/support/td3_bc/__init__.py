"""TD3+BC as a user's own code: what it takes to add an algorithm, written where a user would write it."""
