//! Calls as bytes: arguments into a record, out of it again, and results back into it.
//!
//! Invariant: [`CallWriter`] and [`Params`](super::params::Params) agree because both are driven by the function's
//! parameter types; what is read is what this process wrote. Left out: what a user may pass where (`api`'s `Arg`), and how
//! parameters read their arguments (`params`).

use std::sync::{Arc, OnceLock};

use super::INLINE_MAX;
use super::cell::{self, BODY, Blank, PAD, Phase, RawRef, Record, SLOT, Slot, SlotTag};
use super::entry::{FnEntry, Kind};
use super::events;
use super::local::Local;
use super::options::Extra;
use super::pin::{Pin, PinnedRef};
use crate::base::{Error, Failure, Origin};
use crate::store::Draft;
use crate::trace::{Deed, NOT_RECORDED};
use crate::value::{Archived, Cap, Place, Placed, Ser, Value, decode, root};

/// What running a call gives: nothing (the value is in the record) or why there is none.
pub type Outcome = Result<(), CallError>;

/// Why a call has no value.
#[derive(Debug)]
pub enum CallError {
    /// The function said so.
    Function(Failure),
    /// The runtime did.
    Runtime(Error),
}

impl From<Error> for CallError {
    fn from(e: Error) -> CallError {
        CallError::Runtime(e)
    }
}

/// A pointer to an actor's state, or nothing for tasks.
#[derive(Clone, Copy, Debug)]
pub struct StateRef(pub *mut ());
// SAFETY: actor states are Send, and whoever gets the pointer holds the actor's run lock or its admission.
unsafe impl Send for StateRef {}

/// An entry for objects that no call made.
pub static PUT: FnEntry = FnEntry::inert("put", Kind::Object);

/// Arguments that together are one `Vec`.
pub struct Many {
    pub(super) parts: Vec<RawRef>,
    joined: OnceLock<Result<RawRef, Error>>,
    join: fn(&Local, &[RawRef]) -> Result<RawRef, Error>,
}

impl Many {
    /// The one that they were joined to, if they were.
    pub(super) fn joined(&self) -> Option<&Record> {
        self.joined_ref().map(|object| &**object)
    }

    /// A reference to it.
    pub(super) fn joined_ref(&self) -> Option<&RawRef> {
        self.joined.get()?.as_ref().ok()
    }
}

/// Writes one call's arguments.
pub struct CallWriter<'a> {
    local: &'a Local,
    function: &'static str,
    ser: super::local::SerGuard<'a>,
    written: usize,
    /// When it began, if it is recorded.
    pub(super) begun: u64,
    /// Some argument is a reference, so that the call may have to wait.
    pub(super) refers: bool,
    error: Option<Error>,
}

impl<'a> CallWriter<'a> {
    /// Begins a call with `count` arguments.
    #[inline]
    pub fn new(local: &'a Local, function: &'static str, count: usize) -> CallWriter<'a> {
        let begun = local.lane.begin();
        let mut ser = local.borrow_ser();
        ser.begin(BODY + count * SLOT);
        CallWriter {
            local,
            function,
            ser,
            written: 0,
            begun,
            refers: false,
            error: None,
        }
    }

    #[inline]
    fn slot(&mut self, slot: Slot) {
        slot.write_to(self.ser.head_mut(BODY + self.written * SLOT, SLOT));
        self.written += 1;
    }

    /// An argument by value.
    #[inline]
    pub fn value<T: Value>(&mut self, value: &T) {
        let start = self.ser.pos();
        match self.ser.place(value) {
            Ok(Placed::Scratch) if self.ser.pos() - start <= INLINE_MAX => {
                let end = self.ser.pos() as u32;
                self.slot(Slot {
                    tag: SlotTag::Inline,
                    end,
                    ptr: std::ptr::null_mut(),
                });
            }
            other => self.large(value, start, other),
        }
    }

    #[cold]
    fn large<T: Value>(
        &mut self,
        value: &T,
        start: usize,
        placed: Result<Placed, crate::value::CodecError>,
    ) {
        if matches!(placed, Ok(Placed::Scratch)) {
            self.ser.rewind(start);
        }
        // The value's own references go with its object, not with the call: a writer of its own keeps them apart.
        let object = match placed {
            Ok(_) => put(self.local, value, Origin::Argument(self.function)),
            Err(e) => Err(encode_error::<T>(&e)),
        };
        match object {
            Ok(object) => self.reference(object),
            Err(e) => {
                self.error.get_or_insert(e);
            }
        }
    }

    /// The function called, for messages.
    pub fn function(&self) -> &'static str {
        self.function
    }

    /// The call cannot be made.
    pub fn fail(&mut self, why: Error) {
        self.error.get_or_insert(why);
    }

    /// An argument that is an object, or will be.
    #[inline]
    pub fn reference(&mut self, object: RawRef) {
        self.refers = true;
        self.slot(Slot {
            tag: SlotTag::Ref,
            end: 0,
            ptr: object.into_raw().cast(),
        });
    }

    /// An argument that is a `Vec` of the values of many objects.
    pub fn references<T: Value>(&mut self, parts: Vec<RawRef>) {
        self.refers = true;
        let many = Many {
            parts,
            joined: OnceLock::new(),
            join: join::<T>,
        };
        let ptr = Box::into_raw(Box::new(many)).cast();
        self.slot(Slot {
            tag: SlotTag::Many,
            end: 0,
            ptr,
        });
    }

    /// The finished record, and whether it holds references; or a failed one.
    #[inline]
    pub(super) fn finish(mut self, mut blank: Blank, result_size: usize) -> (RawRef, bool) {
        if let Some(e) = self.error.take() {
            blank.refs = 1;
            return (cell::failed(blank, e), false);
        }
        blank.caps = self.ser.take_caps();
        // SAFETY: that many slots were written at the beginning, and what they own goes to the record.
        let record = unsafe {
            cell::with_args(
                blank,
                self.written,
                self.ser.padded(BODY),
                self.ser.pos(),
                result_size,
            )
        };
        self.written = 0;
        if self.begun != NOT_RECORDED {
            let bytes = self.ser.pos() - BODY;
            // SAFETY: nobody else has the record yet, so its arguments stay as they are.
            let inputs = |f: &mut dyn FnMut(u64)| unsafe { each_input(&record, |i| f(i.id)) };
            events::submitted(self.local, &record, self.begun, bytes, inputs);
        }
        (record, self.refers)
    }
}

impl Drop for CallWriter<'_> {
    #[inline]
    fn drop(&mut self) {
        for i in 0..self.written {
            let slot = Slot::read_from(self.ser.head_mut(BODY + i * SLOT, SLOT));
            // SAFETY: written and still ours: an error or a panic came before `finish`.
            unsafe { drop_slot(slot) };
        }
    }
}

/// # Safety
/// The caller owns what the slot owns.
pub(super) unsafe fn drop_slot(slot: Slot) {
    // SAFETY: the caller's promise.
    unsafe {
        match slot.tag {
            SlotTag::Inline => {}
            SlotTag::Ref => drop(RawRef::from_raw(slot.ptr.cast())),
            SlotTag::Many => drop(Box::from_raw(slot.ptr.cast::<Many>())),
        }
    }
}

/// Calls `f` for every object that the record's arguments refer to, until it says stop.
///
/// # Safety
/// As for [`Record::slots`].
pub(super) unsafe fn each_input(record: &Record, mut f: impl FnMut(&RawRef)) {
    // SAFETY: the caller's promise; the slots own counts of what they point to.
    unsafe {
        for slot in record.slots() {
            match slot.tag {
                SlotTag::Inline => {}
                SlotTag::Ref => {
                    let r = std::mem::ManuallyDrop::new(RawRef::from_raw(slot.ptr.cast()));
                    f(&r);
                }
                SlotTag::Many => (*slot.ptr.cast::<Many>()).parts.iter().for_each(&mut f),
            }
        }
    }
}

fn join<T: Value>(local: &Local, parts: &[RawRef]) -> Result<RawRef, Error> {
    let mut all = Vec::with_capacity(parts.len());
    for part in parts {
        all.push(read::<T>(part)?);
    }
    let (begun, origin) = (local.lane.begin(), Origin::Argument("a Vec of references"));
    let object = place(local, &all, origin, begun)?;
    events::object(local, begun, Deed::Join, origin, &object);
    Ok(object)
}

/// What an archiving error looks like to the user.
pub fn encode_error<T>(e: &crate::value::CodecError) -> Error {
    Error::Encode {
        value: std::any::type_name::<T>(),
        why: Arc::from(e.to_string()),
    }
}

/// What a decoding error looks like to the user.
pub fn decode_error<T>(e: &crate::value::CodecError) -> Error {
    Error::Decode {
        expected: std::any::type_name::<T>(),
        why: Arc::from(e.to_string()),
    }
}

/// A blank for an object that is there already, and was begun at `begun`.
#[inline]
pub fn object_blank(local: &Local, caps: Option<Box<[Cap]>>, begun: u64) -> Blank {
    Blank {
        entry: &PUT,
        refs: 1,
        phase: Phase::Done,
        caller: 0,
        id: local.next_object(begun),
        target: None,
        extra: None,
        caps,
    }
}

/// An object from a value: inside its record when small, else in the store.
#[inline]
pub fn put<T: Value>(local: &Local, value: &T, origin: Origin) -> Result<RawRef, Error> {
    let begun = local.lane.begin();
    let object = place(local, value, origin, begun)?;
    events::object(local, begun, Deed::Put, origin, &object);
    Ok(object)
}

/// As [`put`], always in the store, with what `extra` gives for its number.
///
/// # Errors
/// As for [`put`], and that there are references in it.
pub fn put_apart<T: Value>(
    local: &Local,
    value: &T,
    origin: Origin,
    extra: impl FnOnce(u64) -> Option<Box<Extra>>,
) -> Result<RawRef, Error> {
    let begun = local.lane.begin();
    let (sealed, caps) = {
        let mut ser = local.borrow_ser();
        ser.begin(BODY);
        match ser.place(value).map_err(|e| encode_error::<T>(&e))? {
            Placed::Scratch => {
                let caps = ser.take_caps();
                (store_padded(local, &ser.bytes()[BODY..], origin)?, caps)
            }
            Placed::Measured(size) => store_measured(local, &mut ser, value, size, origin)?,
        }
    };
    if caps.is_some() {
        return Err(Error::Encode {
            value: std::any::type_name::<T>(),
            why: "there are references in it, which a copy would not keep: put what they refer to with copies, and the rest without"
                .into(),
        });
    }
    let mut blank = object_blank(local, None, begun);
    blank.extra = extra(blank.id);
    let object = cell::with_stored_value(blank, sealed);
    events::object(local, begun, Deed::Put, origin, &object);
    Ok(object)
}

#[inline]
fn place<T: Value>(local: &Local, value: &T, origin: Origin, begun: u64) -> Result<RawRef, Error> {
    let mut ser = local.borrow_ser();
    ser.begin(BODY);
    let placed = ser.place(value).map_err(|e| encode_error::<T>(&e))?;
    match placed {
        Placed::Scratch => {
            let caps = ser.take_caps();
            let archive = &ser.bytes()[BODY..];
            if archive.len() <= INLINE_MAX {
                return Ok(cell::with_inline_value(
                    object_blank(local, caps, begun),
                    archive,
                ));
            }
            let sealed = store_padded(local, archive, origin)?;
            Ok(cell::with_stored_value(
                object_blank(local, caps, begun),
                sealed,
            ))
        }
        Placed::Measured(size) => {
            let (sealed, caps) = store_measured(local, &mut ser, value, size, origin)?;
            Ok(cell::with_stored_value(
                object_blank(local, caps, begun),
                sealed,
            ))
        }
    }
}

/// Bytes written at positions from [`BODY`] go to a place congruent to it.
pub(super) fn store_padded(
    local: &Local,
    archive: &[u8],
    origin: Origin,
) -> Result<crate::store::Sealed, Error> {
    let mut draft = local.engine.create(local, PAD + archive.len(), origin)?;
    draft[..PAD].fill(0);
    draft.write_at(PAD, archive);
    Ok(draft.seal())
}

impl Place for Draft {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
    fn write_at(&mut self, pos: usize, piece: &[u8]) {
        Draft::write_at(self, pos, piece);
    }
}

impl Place for crate::shm::Lease {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
    fn write_at(&mut self, pos: usize, piece: &[u8]) {
        crate::shm::Lease::write_at(self, pos, piece);
    }
}

fn store_measured<T: Value>(
    local: &Local,
    ser: &mut Ser,
    value: &T,
    size: usize,
    origin: Origin,
) -> Result<(crate::store::Sealed, Option<Box<[Cap]>>), Error> {
    let mut draft = local.engine.create(local, size, origin)?;
    ser.write_into(value, &mut draft)
        .map_err(|e| encode_error::<T>(&e))?;
    Ok((draft.seal(), ser.take_caps()))
}

/// Puts a call's value into its record, whose arguments are dropped first.
///
/// # Safety
/// The caller holds the record's claim and no borrow of its arguments is alive.
#[inline]
pub unsafe fn set_value<T: Value>(local: &Local, record: &RawRef, value: &T) -> Result<(), Error> {
    // SAFETY: the caller's promise, for every call below.
    unsafe {
        record.drop_args();
        let mut ser = local.borrow_ser();
        ser.begin(BODY);
        match ser.place(value).map_err(|e| encode_error::<T>(&e))? {
            Placed::Scratch => {
                let caps = ser.take_caps();
                let archive = &ser.bytes()[BODY..];
                if archive.len() <= record.room() {
                    record.set_inline(archive, caps);
                } else if archive.len() <= INLINE_MAX {
                    record.set_boxed(archive, caps);
                } else if super::isolate::in_worker() {
                    super::isolate::keep_large(record, archive, caps)?;
                } else {
                    let origin = Origin::Result(record.entry.name);
                    record.set_stored(store_padded(local, archive, origin)?, caps);
                }
            }
            Placed::Measured(size) if super::isolate::in_worker() => {
                let mut lease = super::isolate::lend(size)?;
                ser.write_into(value, &mut lease)
                    .map_err(|e| encode_error::<T>(&e))?;
                record.set_foreign(super::isolate::written(lease), ser.take_caps());
            }
            Placed::Measured(size) => {
                let origin = Origin::Result(record.entry.name);
                let (sealed, caps) = store_measured(local, &mut ser, value, size, origin)?;
                record.set_stored(sealed, caps);
            }
        }
    }
    Ok(())
}

/// The value of a call that ended, or its error. The caller knows that the record's type is `T`.
#[inline]
pub fn read<T: Value>(record: &RawRef) -> Result<T, Error> {
    if cell::phase(record.state()) != Phase::Done {
        return Err(record.error());
    }
    let pin = Pin::new(record)?;
    super::far::check::value::<T>(record, pin.bytes())?;
    read_pinned(pin.bytes(), pin.caps())
}

#[inline]
fn read_pinned<T: Value>(bytes: &[u8], caps: &[Cap]) -> Result<T, Error> {
    // SAFETY: the bytes of a `Done` record: an archive that this process wrote or checked, and immutable; the record was
    // made for a `T` (typed references keep the type).
    unsafe { decode::<T>(bytes, caps) }.map_err(|e| decode_error::<T>(&e))
}

/// The value of a call that succeeded, in place. The caller knows that the record's type is `T`.
#[inline]
pub fn archived<T: Value>(record: &PinnedRef) -> &Archived<T> {
    // SAFETY: as in `read_pinned`; whoever made the pinned reference a typed one checked what came from elsewhere.
    unsafe { root::<T>(record.bytes()) }
}

/// Keeps a value in place to be read as a `T`. The caller knows that the record's type is `T`.
///
/// # Errors
/// That it is lost, or came from another node and is no `T`.
#[inline]
pub fn pinned<T: Value>(record: RawRef) -> Result<PinnedRef, Error> {
    let pin = PinnedRef::new(record)?;
    super::far::check::value::<T>(pin.raw(), pin.bytes())?;
    Ok(pin)
}

/// Joins arguments that together are one `Vec`, once; fails if one of them has no value.
pub(super) fn join_parts(local: &Local, many: &Many, of: &Record) -> Result<(), Error> {
    for part in &many.parts {
        dependency(part, of)?;
    }
    let joined = many.joined.get_or_init(|| (many.join)(local, &many.parts));
    joined.as_ref().map_or_else(|e| Err(e.clone()), |_| Ok(()))
}

/// An argument that is an object, or the error of a call that cannot run without it.
pub(super) fn dependency<'a>(object: &'a Record, of: &Record) -> Result<&'a Record, Error> {
    if cell::phase(object.state()) == Phase::Done {
        return Ok(object);
    }
    Err(failed_input(object.error(), of))
}

/// The error of a call one of whose arguments has this one.
pub(super) fn failed_input(error: Error, of: &Record) -> Error {
    match error {
        Error::DependencyFailed { cause, mut through } => {
            through.push(of.entry.name);
            Error::DependencyFailed { cause, through }
        }
        cause => Error::DependencyFailed {
            cause: Arc::new(cause),
            through: vec![of.entry.name],
        },
    }
}

/// One argument, for whoever sends it elsewhere.
pub(super) enum Argument<'a> {
    /// In the record itself, ending there.
    Inline(u32),
    /// An object, which is there.
    Object(&'a Record),
}

impl Record {
    /// The argument of this index.
    ///
    /// # Safety
    /// The caller holds the claim, has pinned the arguments, and does not drop them while it uses what this gives.
    pub(super) unsafe fn argument(&self, index: usize) -> Argument<'_> {
        // SAFETY: the caller's promise; slots own what they point to.
        unsafe {
            let slot = self.slots()[index];
            match slot.tag {
                SlotTag::Inline => Argument::Inline(slot.end),
                SlotTag::Ref => Argument::Object(&*slot.ptr.cast::<Record>()),
                SlotTag::Many => {
                    let joined = (*slot.ptr.cast::<Many>()).joined();
                    Argument::Object(joined.expect("joined when the arguments were pinned"))
                }
            }
        }
    }
}
