"""From an author's source to the learner's and the instructor's notebook."""
