"""Assigners: predictions and ground truth to an assignment, without gradient."""

from detkit.assign.assignment import Assignment
from detkit.assign.hungarian import HungarianAssigner, Pairs
from detkit.assign.sim_ota import SimOTAAssigner
from detkit.assign.task_aligned import TaskAlignedAssigner

__all__ = ["Assignment", "HungarianAssigner", "Pairs", "SimOTAAssigner", "TaskAlignedAssigner"]
