"""Methods that need no training: a method is fitted on two pictures and gives a function of color."""
