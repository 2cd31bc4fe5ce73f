"""`splitters.teachers.Teacher`, the base class of a teacher."""

from splitters.contract import Teacher

__all__ = ["Teacher"]
