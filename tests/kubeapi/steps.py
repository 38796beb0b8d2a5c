"""The steps, in order."""

import begin
import disturb
import leave

ALL = [*begin.STEPS, *disturb.STEPS, *leave.STEPS]
