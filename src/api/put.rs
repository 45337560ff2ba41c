//! Making objects without a call: put a value, put numbers, or fill shared memory in place.
//!
//! Invariant: what is in the store is a complete archive by the time anyone can refer to it.
//! Left out: objects that other processes write.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ObjectRef;
use crate::base::{Error, Origin, Result};
use crate::exec::call::{self, CallWriter};
use crate::exec::copies::Copies;
use crate::exec::options::Extra;
use crate::exec::{Local, RawRef, cell, events, local};
use crate::store::Draft;
use crate::trace::{Deed, NOT_RECORDED};
use crate::value::{self, Native, Value};

/// Puts a value where every task and actor can read it.
///
/// One copy: small values into the record of the reference, values above 512 bytes into shared memory, numeric vectors at
/// the memory's speed (on several threads from 64 MiB on). When the store is full it waits for room, at most as long as
/// [`Config::store_patience`](crate::Config::store_patience) says.
///
/// # Errors
/// [`Error::StoreFull`] with the biggest holders, [`Error::Encode`] if the value cannot be archived.
///
/// ```
/// # use mobula::prelude::*;
/// # let _mobula = mobula::init()?;
/// let weights = mobula::put(&vec![0.5f32; 1000])?;
/// assert_eq!(mobula::view(&weights)?.as_slice(), [0.5; 1000]);
/// # Ok::<(), mobula::Error>(())
/// ```
#[track_caller]
#[inline]
pub fn put<T: Value>(value: &T) -> Result<ObjectRef<T>> {
    let origin = Origin::Put(Location::caller());
    local::with(|local| call::put(local, value, origin))?.map(ObjectRef::new)
}

/// How a value is put: with copies on other nodes, or at a URL outside of all nodes, so that it outlives its own.
///
/// What [`put`] makes has its bytes on this node, and is lost with it. With [`replicas`](Self::replicas), references to it that are on other nodes can be
/// read after this node died, as long as one of those that have a copy lives; they can be handed on, too. While this node
/// lives, a copy that was lost with its node is made again on another. Copies are freed with the last reference.
///
/// ```
/// # use mobula::prelude::*;
/// use mobula::{Error, PutOptions};
///
/// let _mobula = mobula::Config::new().num_cpus(1).init()?;
/// let weights = vec![0.5f32; 1000];
/// // On two other nodes; where there are none, that is said.
/// match PutOptions::new().replicas(2).put(&weights) {
///     Ok(kept) => println!("{}", mobula::view(&kept)?.len()),
///     Err(Error::TooFewReplicas { wanted, made, nodes, .. }) => assert_eq!((wanted, made, nodes), (2, 0, 0)),
///     Err(e) => return Err(e),
/// }
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is put before .put(..)"]
pub struct PutOptions {
    replicas: u32,
    /// Whether there is a durable copy, and where, if not where the settings say.
    durable: Option<Option<PathBuf>>,
    timeout: Duration,
}

impl Default for PutOptions {
    fn default() -> PutOptions {
        PutOptions::new()
    }
}

impl PutOptions {
    /// As [`put`] does it: no copies.
    pub fn new() -> PutOptions {
        PutOptions {
            replicas: 0,
            durable: None,
            timeout: Duration::from_secs(60),
        }
    }

    /// How many other nodes have a copy, beside this one, as with `replicas` of an actor: the value outlives as many of these
    /// nodes and its own as die together, less one. Those of other machines go before those of this one. Default: 0.
    pub fn replicas(mut self, n: u32) -> PutOptions {
        self.replicas = n;
        self
    }

    /// Has a copy written where [`Config::durable`](crate::Config::durable), or the environment variable `MOBULA_DURABLE`, says: in a
    /// folder, or at another URL that the crate `object_store` reaches. Default: none is.
    ///
    /// When all nodes that had the value are dead, references to it on other nodes are read from there, if they reach that place: they
    /// know where it is, whatever their own settings are. Copies in memory are read first. The durable copy is deleted with the last
    /// reference, as long as somebody lives who can tell; what stays
    /// when everybody dies is for you to delete (`docs/recovery.md` says when). The node need not be of a cluster: then the copy is there while the references are.
    ///
    /// ```
    /// # use mobula::prelude::*;
    /// use mobula::PutOptions;
    ///
    /// let folder = std::env::temp_dir().join(format!("kept-{}", std::process::id()));
    /// let _mobula = mobula::Config::new().num_cpus(1).durable(&folder).init()?;
    /// let weights = PutOptions::new().durable().put(&vec![0.5f32; 1000])?;
    /// assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    /// assert_eq!(mobula::get(&weights)?.len(), 1000);
    /// # drop((weights, _mobula)); std::fs::remove_dir(&folder).expect("the copy went with the reference");
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn durable(mut self) -> PutOptions {
        self.durable = Some(None);
        self
    }

    /// As [`durable`](Self::durable), in this folder or at this URL, whatever the settings say.
    ///
    /// A folder that is not there is made by the first put of a process; one that is gone later is [`Error::NotDurable`]. A `memory:` URL is
    /// refused.
    ///
    /// ```no_run
    /// # use mobula::prelude::*;
    /// use mobula::PutOptions;
    ///
    /// let _mobula = mobula::init()?;
    /// let kept = PutOptions::new().durable_at("s3://bucket/runs/7").put(&vec![1u8; 1000])?;
    /// # drop(kept); Ok::<(), mobula::Error>(())
    /// ```
    pub fn durable_at(mut self, dir_or_url: impl AsRef<Path>) -> PutOptions {
        self.durable = Some(Some(dir_or_url.as_ref().to_owned()));
        self
    }

    /// How long [`put`](Self::put) waits for the copies. Default: a minute.
    pub fn timeout(mut self, longest: Duration) -> PutOptions {
        self.timeout = longest;
        self
    }

    /// Puts a value, and returns when as many nodes have it as were asked for, and its durable copy is written: blocks for the time
    /// that its bytes take to each of them, with the CPU lent. With copies it is in shared memory however small it is, and readers
    /// elsewhere ask for its bytes.
    ///
    /// # Errors
    /// As for [`put()`]. [`Error::TooFewReplicas`] with the numbers and reasons, if there are too few nodes, or too few that have
    /// room and stay, for longer than a death takes to be noticed, or it takes longer than the timeout: then no node keeps anything.
    /// [`Error::NotDurable`] if the durable copy cannot be written, or not in that time, with the place and the reason. [`Error::Encode`] if there are references in the
    /// value, which a copy would not keep.
    #[track_caller]
    pub fn put<T: Value>(&self, value: &T) -> Result<ObjectRef<T>> {
        if !self.copies() {
            return put(value);
        }
        let origin = Origin::Put(Location::caller());
        self.copied(|local, extra| call::put_apart(local, value, origin, extra))
    }

    /// As [`put`](Self::put), numbers as a `Vec`, without making one first.
    #[track_caller]
    pub fn put_slice<T: Native>(&self, numbers: &[T]) -> Result<ObjectRef<Vec<T>>> {
        if !self.copies() {
            return put_slice(numbers);
        }
        let origin = Origin::Put(Location::caller());
        self.copied(|local, extra| slice_object(local, numbers, origin, extra))
    }

    fn copies(&self) -> bool {
        self.replicas > 0 || self.durable.is_some()
    }

    fn copied<T>(
        &self,
        make: impl FnOnce(&Local, &dyn Fn(u64) -> Option<Box<Extra>>) -> Result<RawRef>,
    ) -> Result<ObjectRef<T>> {
        local::with(|local| {
            let engine = &local.engine;
            let object = make(local, &|number| engine.copied(number))?;
            let wanted = Copies {
                replicas: self.replicas,
                durable: self.durable.as_ref().map(Option::as_deref),
                timeout: self.timeout,
            };
            engine.make_copies(local, &object, wanted)?;
            Ok(ObjectRef::new(object))
        })?
    }
}

/// Puts numbers as a `Vec`, without making one first. Cost and errors as for [`put`].
#[track_caller]
pub fn put_slice<T: Native>(numbers: &[T]) -> Result<ObjectRef<Vec<T>>> {
    let origin = Origin::Put(Location::caller());
    local::with(|local| slice_object(local, numbers, origin, &|_| None))?.map(ObjectRef::new)
}

fn slice_object<T: Native>(
    local: &Local,
    numbers: &[T],
    origin: Origin,
    extra: &dyn Fn(u64) -> Option<Box<Extra>>,
) -> Result<RawRef> {
    let begun = local.lane.begin();
    let (size, _) = value::vec_layout::<T>(numbers.len()).ok_or_else(too_many::<T>)?;
    let mut draft = local.engine.create(local, size, origin)?;
    draft.write_at(0, value::number_bytes(numbers));
    value::vec_root::<T>(&mut draft, numbers.len());
    let mut blank = call::object_blank(local, None, begun);
    blank.extra = extra(blank.id);
    let object = cell::with_stored_value(blank, draft.seal());
    events::object(local, begun, Deed::Put, origin, &object);
    Ok(object)
}

pub(super) fn write_slice<T: Native>(numbers: &[T], call: &mut CallWriter<'_>)
where
    Vec<T>: Value,
{
    if size_of_val(numbers) <= crate::exec::INLINE_MAX {
        call.value(&numbers.to_vec());
        return;
    }
    let origin = Origin::Argument(call.function());
    match local::with(|local| slice_object(local, numbers, origin, &|_| None)).flatten() {
        Ok(object) => call.reference(object),
        Err(e) => call.fail(e),
    }
}

#[cold]
fn too_many<T>() -> Error {
    Error::Encode {
        value: std::any::type_name::<Vec<T>>(),
        why: "more numbers than memory has addresses".into(),
    }
}

/// Shared memory for `len` numbers, to be filled in place and sealed: no copy at all.
///
/// The contents are unspecified until written: zeros, or numbers of earlier objects of this process.
///
/// # Errors
/// [`Error::StoreFull`].
///
/// ```
/// # use mobula::prelude::*;
/// # let _mobula = mobula::init()?;
/// let mut ramp = mobula::create::<f32>(1000)?;
/// for (i, x) in ramp.iter_mut().enumerate() { *x = i as f32; }
/// let ramp = ramp.seal();
/// assert_eq!(mobula::view(&ramp)?[999], 999.0);
/// # Ok::<(), mobula::Error>(())
/// ```
#[track_caller]
pub fn create<T: Native>(len: usize) -> Result<Writing<T>> {
    let origin = Origin::Create(Location::caller());
    let (size, _) = value::vec_layout::<T>(len).ok_or_else(too_many::<T>)?;
    let draft = local::with(|local| {
        let begun = local.lane.begin();
        let draft = local.engine.create(local, size, origin)?;
        if begun != NOT_RECORDED {
            events::made(local, begun, Deed::Create, origin, 0, size);
        }
        Ok::<_, Error>(draft)
    })??;
    Ok(Writing {
        draft,
        len,
        origin,
        kind: PhantomData,
    })
}

/// Numbers in shared memory that are being written; see [`create`]. Dropping it frees them.
#[derive(Debug)]
pub struct Writing<T> {
    draft: Draft,
    len: usize,
    origin: Origin,
    kind: PhantomData<T>,
}

impl<T: Native> Deref for Writing<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        value::numbers(&self.draft, self.len)
    }
}

impl<T: Native> DerefMut for Writing<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        value::numbers_mut(&mut self.draft, self.len)
    }
}

impl<T: Native> Writing<T> {
    /// Ends writing: from here on the numbers never change.
    pub fn seal(mut self) -> ObjectRef<Vec<T>> {
        value::vec_root::<T>(&mut self.draft, self.len);
        let (sealed, origin) = (self.draft.seal(), self.origin);
        let object = local::with(|local| {
            let begun = local.lane.begin();
            let blank = call::object_blank(local, None, begun);
            let object = cell::with_stored_value(blank, sealed);
            events::object(local, begun, Deed::Seal, origin, &object);
            object
        });
        match object {
            Ok(object) => ObjectRef::new(object),
            Err(e) => super::no_runtime(e),
        }
    }
}

/// Takes in an archive of a `T` that something else wrote: read from a file, received from a peer.
///
/// The bytes are copied into shared memory and validated there, once; every byte the archive refers to is looked at.
///
/// # Errors
/// [`Error::Decode`] if they are not an archive of a `T`; [`Error::StoreFull`].
///
/// ```
/// # use mobula::prelude::*;
/// # let _mobula = mobula::init()?;
/// let original = mobula::put(&vec![String::from("kept"), String::from("in a file")])?;
/// let file = mobula::view(&original)?.bytes().to_vec();
/// let back = mobula::put_archived::<Vec<String>>(&file)?;
/// assert_eq!(mobula::get(&back)?, mobula::get(&original)?);
/// assert!(mobula::put_archived::<Vec<String>>(&file[1..]).is_err());
/// # Ok::<(), mobula::Error>(())
/// ```
#[track_caller]
pub fn put_archived<T: Value>(bytes: &[u8]) -> Result<ObjectRef<T>> {
    let origin = Origin::Put(Location::caller());
    local::with(|local| {
        let begun = local.lane.begin();
        let mut draft = local.engine.create(local, bytes.len(), origin)?;
        draft.write_at(0, bytes);
        let sealed = draft.seal();
        value::check::<T>(&sealed).map_err(|e| call::decode_error::<T>(&e))?;
        let blank = call::object_blank(local, None, begun);
        let object = cell::with_stored_value(blank, sealed);
        events::object(local, begun, Deed::Put, origin, &object);
        Ok(ObjectRef::new(object))
    })?
}
