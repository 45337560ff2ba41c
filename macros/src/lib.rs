//! The attributes of the `mobula` crate: `#[remote]` makes functions into tasks and structs into
//! actors, `#[mobula::main]` starts a node around `main`. Use them through `mobula`, which
//! re-exports them: the code they write names `::mobula::__private`.

mod actor;
mod docs;
mod errors;
mod main_fn;
mod method;
mod options;
mod params;
mod state;
mod task;
mod types;
mod values;

use errors::Errors;
use options::{Options, Target};
use proc_macro2::TokenStream;
use quote::quote;
use syn::Item;

/// Makes a function a task, a struct the state of an actor, or an `impl` block an actor's methods.
///
/// On a function it adds a type of the same name with `f::remote(..)` and `f::options()`; the
/// function itself stays as it is. Options: `num_cpus`, `num_gpus`, `resources(name = 1.0)`,
/// `max_retries`, `retry_panics`, `priority`, `isolate`, `memory = "2G"`, `name`.
///
/// On a struct or enum it derives the rkyv archive of the state. Put `#[remote]` above any
/// `#[derive(..)]`, so that an archive you derive yourself is seen. On its `impl` block it adds
/// `T::remote(..)`, `T::options()` and `T::named(..)`; each `pub` method with a receiver can then
/// be called through the handle. Options of both: `num_cpus`, `num_gpus`, `resources(..)`,
/// `max_restarts`, `max_concurrency`, `max_pending`, `restart_on_panic`, `isolate`, `memory = "2G"`,
/// `checkpoint_every`, `checkpoint_interval` in seconds, `log_bytes = "64M"`, `replicas`,
/// `durable_checkpoints`, `name`.
#[proc_macro_attribute]
pub fn remote(
    args: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    expand_remote(args.into(), &item.into()).into()
}

/// Makes a type one that mobula can pass, return and store: derives rkyv's `Archive`, `Serialize`
/// and `Deserialize`. Put it above any `#[derive(..)]`, so that an archive you derive yourself is
/// seen. The state of an actor needs no `#[value]`: `#[remote]` does the same.
#[proc_macro_attribute]
pub fn value(
    args: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    state::expand_value(args.into(), &item.into()).into()
}

/// Starts a node before the body of `main` and stops it after. `async fn main` runs on the node's
/// async runtime.
#[proc_macro_attribute]
pub fn main(
    args: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    main_fn::expand(args.into(), &item.into()).into()
}

fn expand_remote(args: TokenStream, tokens: &TokenStream) -> TokenStream {
    let item = match syn::parse2::<Item>(tokens.clone()) {
        Ok(item) => item,
        Err(error) => {
            let error = error.to_compile_error();
            return quote!(#tokens #error);
        }
    };
    let mut errors = Errors::new();
    let expanded = match item {
        Item::Fn(function) => {
            let options = Options::parse(args, Target::Function, &mut errors);
            task::expand(&function, &options, &mut errors)
        }
        Item::Impl(block) => {
            let options = Options::parse(args, Target::Actor, &mut errors);
            actor::expand(&block, &options, &mut errors)
        }
        Item::Struct(_) | Item::Enum(_) => {
            let options = Options::parse(args, Target::Actor, &mut errors);
            state::expand(&item, &options, &mut errors)
        }
        other => {
            errors.at(
                state::head(&other),
                format!(
                    "`#[remote]` cannot stand on {}: put it on a function (a task), or on a struct \
                     or enum and on its `impl` block (an actor)",
                    state::describe(&other)
                ),
            );
            quote!(#other)
        }
    };
    let errors = errors.into_tokens();
    quote!(#expanded #errors)
}
