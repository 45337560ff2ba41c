//! Tests of option parsing and of the suggestions for misspelt names.

use super::*;

fn parse(tokens: TokenStream, target: Target) -> (String, Vec<String>) {
    let mut errors = Errors::new();
    let options = Options::parse(tokens, target, &mut errors);
    let text = options
        .0
        .iter()
        .map(|(name, value)| format!("{name}={}", show(value)));
    (text.collect::<Vec<_>>().join(" "), errors.messages())
}

fn function(tokens: TokenStream) -> (String, Vec<String>) {
    parse(tokens, Target::Function)
}

#[test]
fn distances() {
    for (a, b, d) in [
        ("", "", 0),
        ("", "abc", 3),
        ("num_cpu", "num_cpus", 1),
        ("kitten", "sitting", 3),
    ] {
        assert_eq!(distance(a, b), d);
        assert_eq!(distance(b, a), d);
    }
    let names = || ["num_cpus", "num_gpus", "name"].into_iter();
    assert_eq!(closest("num_cpu", names()), Some("num_cpus"));
    assert_eq!(closest("numgpus", names()), Some("num_gpus"));
    assert_eq!(closest("colour", names()), None);
}

#[test]
fn every_option_is_read() {
    let (text, errors) = function(quote! {
        num_cpus = 0.5, num_gpus = 1, resources(disk = 2, "odd name" = 0.25), max_retries = 3,
        retry_panics, priority = -5, isolate, memory = 4_096, name = "norm",
    });
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(
        text,
        "num_cpus=0.5f64 num_gpus=1f64 resources=&[(\"disk\", 2f64), (\"odd name\", 0.25f64)] \
         max_retries=3u32 retry_panics=true priority=-5i32 isolate=true \
         memory=4096u64 name=\"norm\""
            .replace("=-5", "= -5")
    );
    let (_, errors) = parse(
        quote! {
            num_cpus = 0, max_restarts = 4294967295, max_concurrency = 1, max_pending = 10,
            restart_on_panic = false, isolate = false, memory = "2G", name = "n"
        },
        Target::Actor,
    );
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn every_problem_is_reported() {
    let (text, errors) = function(quote! {
        num_cpu = 2, num_gpus = -1, max_retries = 1.5, retry_panics = 1, priority = 99999999999,
        name = "", num_cpus = 1e999, max_restarts = 1, num_cpus = 1, = , resources = 3
    });
    assert_eq!(text, "");
    assert_eq!(errors.len(), 11, "{errors:#?}");
    assert!(
        errors[0].starts_with("unknown option `num_cpu`; did you mean `num_cpus`? The options")
    );
    assert_eq!(errors[1], "`num_gpus` cannot be negative");
    assert_eq!(errors[2], "`max_retries` takes a whole number, not `1.5`");
    assert_eq!(errors[3], "`retry_panics` takes `true` or `false`, not `1`");
    assert_eq!(errors[5], "this name is empty");
    assert_eq!(errors[6], "`num_cpus` must be a finite number");
    assert!(errors[7].starts_with("`max_restarts` is an option of actors, not of functions."));
    assert_eq!(errors[8], "option `num_cpus` is given twice");
}

#[test]
fn bounds_of_actor_options() {
    let (text, errors) = parse(
        quote!(
            max_concurrency = 0,
            max_pending = 0,
            max_restarts = -1,
            num_cpus = "2"
        ),
        Target::Actor,
    );
    assert_eq!(text, "");
    assert_eq!(
        errors,
        [
            "`max_concurrency` must be at least 1: with 0 no method could ever run",
            "`max_pending` must be at least 1: a mailbox without room takes no call",
            "`max_restarts` cannot be negative",
            "`num_cpus` takes a number, like `2` or `0.5`, not `\"2\"`",
        ]
    );
}

#[test]
fn resources_are_checked_one_by_one() {
    let (text, errors) = function(quote!(resources(a = 1, a = 2, "" = 1, b = -1, c, d = x)));
    assert_eq!(text, "resources=&[(\"a\", 1f64)]");
    assert_eq!(errors.len(), 5, "{errors:#?}");
    assert_eq!(errors[0], "resource `a` is given twice");
    assert_eq!(errors[2], "`b` cannot be negative");
    assert_eq!(function(quote!(resources())).1.len(), 1);
}

#[test]
fn memory_is_bytes_or_a_text_and_needs_isolate() {
    for tokens in [
        quote!(isolate, memory = "2G"),
        quote!(memory = 1, isolate = true),
    ] {
        assert!(function(tokens).1.is_empty());
    }
    let (_, errors) = function(quote!(isolate, memory = 0));
    assert_eq!(errors, ["`memory` must be more than 0 bytes"]);
    let (_, errors) = function(quote!(isolate, memory = -1));
    assert_eq!(errors, ["`memory` cannot be negative"]);
    let (_, errors) = function(quote!(isolate, memory = 9223372036854775808));
    assert_eq!(errors, ["`memory` is less than 8 EiB"]);
    let (_, errors) = function(quote!(isolate, memory = 1.5));
    assert_eq!(
        errors,
        ["`memory` takes bytes or a text like `\"2G\"`, not `1.5`"]
    );
    for tokens in [
        quote!(memory = 1),
        quote!(memory = "2G", isolate = false),
        quote!(isolate, isolate, memory = 1),
    ] {
        let (_, errors) = function(tokens);
        assert_eq!(errors.len(), 1, "{errors:?}");
    }
    // The other attribute of an actor may say `isolate`.
    let (_, errors) = parse(quote!(memory = 1), Target::Actor);
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn nothing_given_is_no_default() {
    let options = Options::parse(TokenStream::new(), Target::Function, &mut Errors::new());
    assert_eq!(
        show(options.defaults(true)),
        "::mobula::__private::Defaults::NONE"
    );
}
