//! What the live tests share: building, starting and ending the programs they watch.
