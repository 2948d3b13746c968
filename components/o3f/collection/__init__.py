"""Online transitions, one after the other, from one environment or from several in processes of their own.

The learner does not see the difference: it is given one environment step at a time. With several workers they have
taken these steps at the same time, with the weights before the first one's updates.
"""

from o3f.collection.make import make_collection
from o3f.collection.steps import Collection, Episode, Settings, Step

__all__ = ["Collection", "Episode", "Settings", "Step", "make_collection"]
