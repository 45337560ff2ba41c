//! Tests of parameter kinds and return kinds.

use super::*;
use syn::{ItemFn, parse_quote};

fn read(item: &ItemFn) -> (Call, Vec<String>) {
    let mut errors = Errors::new();
    let actor: Path = parse_quote!(Counter);
    let call = Call::read(&item.sig, "function", Some(&actor), &mut errors);
    (call, errors.messages())
}

fn problems(item: &ItemFn) -> Vec<String> {
    read(item).1
}

#[test]
fn parameter_kinds() {
    let (call, errors) = read(&parse_quote! {
        fn f(a: u64, v: &[f32], s: &str, t: &rkyv::Archived<Foo>, mut n: Vec<Self>, (x, y): (u8, u8)) {}
    });
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(
        show(call.markers()).replace("::mobula::__private::", ""),
        "(Owned<u64>, Slice<f32>, Text, InPlace<Foo>, Owned<Vec<Counter>>, Owned<(u8, u8)>,)"
    );
    assert_eq!(
        show(call.args()).replace("::mobula::__private::", ""),
        "a:impl Arg<u64>, v:impl Arg<::std::vec::Vec<f32>>, s:impl Arg<::std::string::String>, \
         t:impl Arg<Foo>, n:impl Arg<Vec<Counter>>, arg5:impl Arg<(u8, u8)>"
    );
    assert_eq!(show(call.output), "()");
}

#[test]
fn fresh_names_do_not_clash() {
    let (call, _) = read(&parse_quote!(
        fn f(arg1: u8, _: u8, arg1_: u8) {}
    ));
    assert_eq!(show(call.tuple()), "(arg1, arg1__, arg1_,)");
}

#[test]
fn return_kinds() {
    for (item, output, fallible) in [
        (
            parse_quote!(
                fn f() -> u8 {}
            ),
            "u8",
            false,
        ),
        (
            parse_quote!(
                fn f() -> Result<Vec<Self>, E> {}
            ),
            "Vec<Counter>",
            true,
        ),
        (
            parse_quote!(
                fn f() -> std::io::Result<()> {}
            ),
            "()",
            true,
        ),
        (
            parse_quote!(
                fn f() -> Option<Result<u8, E>> {}
            ),
            "Option<Result<u8, E>>",
            false,
        ),
        (
            parse_quote!(
                fn f() -> [u8; Self::N] {}
            ),
            "[u8; <Counter>::N]",
            false,
        ),
        (
            parse_quote!(
                fn f() -> [u8; A & B] {}
            ),
            "[u8; A &B]",
            false,
        ),
    ] {
        let (call, errors) = read(&item);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(
            (show(&call.output).as_str(), call.fallible),
            (output, fallible)
        );
    }
}

#[test]
fn every_problem_is_reported() {
    let messages = problems(&parse_quote! {
        unsafe fn f<T>(a: &Point, b: &mut Vec<u8>, c: &'a str, d: impl Copy, e: Option<&str>) -> &str {}
    });
    assert_eq!(messages.len(), 8, "{messages:#?}");
    assert!(messages[2].contains("take `Point` by value, or `&Archived<Point>`"));
    assert!(messages[3].contains("take `Vec<u8>` by value and return the changed one"));
    assert!(messages[4].contains("leave `'a` out of `&'a str`"));
    assert!(messages[7].contains("return an owned value"));
}

#[test]
fn borrowed_collections_name_the_slice() {
    let messages = problems(&parse_quote!(
        fn f(a: &Vec<Vec<u8>>, b: &String) {}
    ));
    assert_eq!(
        messages[0],
        "a remote function borrows a `Vec` as `&[Vec<u8>]`"
    );
    assert_eq!(
        messages[1],
        "a remote function borrows text as `&str`, not as `&String`"
    );
}

#[test]
fn a_bare_result_is_refused() {
    let messages = problems(&parse_quote!(
        fn f() -> fmt::Result {}
    ));
    assert!(messages[0].contains("spell `Result<T, E>`"), "{messages:?}");
}
