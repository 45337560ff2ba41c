//! The compile errors that `#[remote]` and `#[mobula::main]` give, word for word.
//!
//! After a change of wording: `TRYBUILD=overwrite cargo test -p mobula-macros --test ui`, then read the diff.

/// What the macros refuse by themselves.
#[test]
fn refused_by_the_attribute() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

/// What the runtime's traits refuse in the code that the macros write.
#[test]
fn refused_by_the_types() {
    trybuild::TestCases::new().compile_fail("tests/ui/types/*.rs");
}
