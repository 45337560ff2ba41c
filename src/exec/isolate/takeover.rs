//! The beginning of a worker process: before `main`, which it never reaches, so that any program can have workers,
//! a test binary too.
//!
//! The executable's list of constructors holds one of ours. In an ordinary process it looks at one variable and returns.
//! In a worker it runs the constructors behind it in the list, by which functions register themselves, serves, and ends
//! the process.
//!
//! Invariant: only a process whose environment names it and whose standard input is a node's socket is a worker; its own
//! children are ordinary processes. Left out: serving (`serve`).

use std::ffi::{c_char, c_int};

use super::super::far::{JOIN, node_main};

type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// Ours.
#[used]
// SAFETY: the section holds pointers to functions of this signature, which glibc and musl call before `main`.
#[unsafe(link_section = ".init_array")]
static TAKE_OVER: Constructor = take_over;

/// Has the linker keep the constructor in every program that has nodes.
pub fn keep() {
    std::hint::black_box(&TAKE_OVER);
}

extern "C" fn take_over(
    argc: c_int,
    argv: *const *const c_char,
    environment: *const *const c_char,
) {
    if std::env::var_os(super::hello::VARIABLE).is_none() {
        if let Ok(head) = std::env::var(JOIN) {
            be_a_node(head, (argc, argv, environment));
        }
        return;
    }
    let Some(setup) = super::serve::Setup::receive() else {
        return; // the node will refuse to start: see `Workers::start`
    };
    // SAFETY: before `main`, in a process that has one thread: nobody else looks at the environment.
    unsafe { std::env::remove_var(super::hello::VARIABLE) };
    // As the standard library does before `main`: a closed pipe is an error, not the end.
    // SAFETY: sets how a signal is treated, in a process that has one thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    for constructor in behind_ours() {
        constructor(argc, argv, environment);
    }
    let code = match std::panic::catch_unwind(|| super::serve::serve(setup)) {
        Ok(()) => 0,
        Err(_) => 101,
    };
    // SAFETY: ends the process at once: what `main` would have set up is not there to be taken down.
    unsafe { libc::_exit(code) }
}

/// Becomes a node of another's program, if this one has nodes of clusters.
fn be_a_node(
    head: String,
    (argc, argv, environment): (c_int, *const *const c_char, *const *const c_char),
) {
    // Programs that a call starts are programs, not nodes.
    // SAFETY: before `main`, in a process that has one thread: nobody else looks at the environment.
    unsafe { std::env::remove_var(JOIN) };
    // As the standard library does before `main`: a closed pipe is an error, not the end.
    // SAFETY: sets how a signal is treated, in a process that has one thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    for constructor in behind_ours() {
        constructor(argc, argv, environment);
    }
    let code = std::panic::catch_unwind(|| node_main(head));
    let code = match code {
        Ok(Some(code)) => code,
        // Without clusters the variable means nothing; but the constructors have run, and must not again.
        Ok(None) => {
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                b"mobula: MOBULA_JOIN is set, and this program was built without the feature `cluster`\n",
            );
            2
        }
        Err(_) => 101,
    };
    // SAFETY: ends the process at once: what `main` would have set up is not there to be taken down.
    unsafe { libc::_exit(code) }
}

/// The executable's constructors that stand behind ours; all of them if ours is in a shared library.
fn behind_ours() -> Vec<Constructor> {
    let all = constructors();
    let ours = all
        .iter()
        .position(|c| *c as usize == take_over as Constructor as usize);
    all[ours.map_or(0, |i| i + 1)..].to_vec()
}

/// The executable's list of constructors, as its own headers tell.
fn constructors() -> Vec<Constructor> {
    let mut found = Vec::new();
    // SAFETY: the kernel says where the executable's program headers are, and they describe what is mapped.
    unsafe {
        let headers = libc::getauxval(libc::AT_PHDR) as *const libc::Elf64_Phdr;
        let count = libc::getauxval(libc::AT_PHNUM) as usize;
        if headers.is_null() {
            return found;
        }
        let headers = std::slice::from_raw_parts(headers, count);
        let of = |kind: u32| headers.iter().find(move |h| h.p_type == kind);
        // Where it was loaded, against where its headers say.
        let base = of(libc::PT_PHDR).map_or(0, |h| {
            headers.as_ptr().addr().wrapping_sub(h.p_vaddr as usize)
        });
        let Some(dynamic) = of(libc::PT_DYNAMIC) else {
            return found;
        };
        let at = |address: u64| {
            std::ptr::with_exposed_provenance::<u64>(base.wrapping_add(address as usize))
        };
        let mut entry: *const [u64; 2] = at(dynamic.p_vaddr).cast();
        let (mut list, mut bytes) = (None, 0);
        const DT_INIT_ARRAY: u64 = 25;
        const DT_INIT_ARRAYSZ: u64 = 27;
        while (*entry)[0] != 0 {
            match *entry {
                [DT_INIT_ARRAY, address] => list = Some(address),
                [DT_INIT_ARRAYSZ, size] => bytes = size as usize,
                _ => {}
            }
            entry = entry.add(1);
        }
        if let Some(list) = list {
            let list: *const usize = at(list).cast();
            for i in 0..bytes / size_of::<usize>() {
                let address = *list.add(i);
                if address != 0 && address != usize::MAX {
                    found.push(std::mem::transmute::<usize, Constructor>(address));
                }
            }
        }
    }
    found
}
