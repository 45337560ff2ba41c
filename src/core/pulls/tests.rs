//! Pulls of one node against an owner that answers as told.
