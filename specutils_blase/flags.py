"""What the column ``flags`` of a line table says."""

__all__ = ["AT_BOUND", "BLENDED", "PRIOR_DOMINATED", "OUTSIDE_WINDOW", "FLAG_MEANING"]

AT_BOUND, BLENDED, PRIOR_DOMINATED, OUTSIDE_WINDOW = 1, 2, 4, 8
FLAG_MEANING = (
    "1 at_bound: a parameter ended at its limit; 2 blended: the strength correlates by more than 0.7 with that of "
    "another line; 4 prior_dominated: the data improved the strength's prior variance by less than half; "
    "8 outside_window: no usable pixel lies within the line's width"
)
