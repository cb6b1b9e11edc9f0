"""Assigners: predictions and ground truth to an assignment, without gradient."""

from detkit.assign.assignment import Assignment
from detkit.assign.sim_ota import SimOTAAssigner
from detkit.assign.task_aligned import TaskAlignedAssigner

__all__ = ["Assignment", "SimOTAAssigner", "TaskAlignedAssigner"]
