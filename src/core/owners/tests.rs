//! References between a few nodes whose messages are carried by hand.
