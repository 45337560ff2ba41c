/* A store of objects in shared memory, for programs in any language.
 *
 * A server is started with `mobula store --socket PATH --capacity 4G`. A program connects, creates
 * objects, writes and seals them; any other program gets them and reads them in place. The library is
 * built by
 *
 *     cargo rustc --release --lib --features c-api --crate-type cdylib
 *
 * as target/release/libmobula.so.
 *
 * Every function returns MOBULA_OK or another code; mobula_store_last_error() says more. Functions may
 * be called from any thread, and a connection may be used by several threads at the same time. What a
 * function gives is written to its out-pointers only when it returns MOBULA_OK. After fork(), connect
 * again in the child.
 */
#ifndef MOBULA_STORE_H
#define MOBULA_STORE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum mobula_code {
    MOBULA_OK = 0,
    MOBULA_ARGUMENT = 1,   /* a null pointer, or a text that is none */
    MOBULA_NOT_FOUND = 2,  /* no object of this name */
    MOBULA_EXISTS = 3,     /* an object of this name is there already */
    MOBULA_NOT_SEALED = 4, /* the object is still being written */
    MOBULA_TIMEOUT = 5,    /* the object was not sealed in time */
    MOBULA_FULL = 6,       /* no room for the object */
    MOBULA_GONE = 7,       /* no server there, or it ended */
    MOBULA_REFUSED = 8,    /* another version, another user, too many clients, or a forked process */
    MOBULA_SYSTEM = 9,     /* the operating system refused something */
    MOBULA_INTERNAL = 10   /* a bug of the library */
};

typedef struct mobula_store mobula_store;     /* a connection */
typedef struct mobula_writing mobula_writing; /* an object being written */
typedef struct mobula_object mobula_object;   /* an object held for reading */

/* Connects to the store served at the socket `path`. Free it with mobula_store_disconnect. */
int mobula_store_connect(const char *path, mobula_store **store);

/* Frees a connection. Objects that are held stay readable until they are released. */
int mobula_store_disconnect(mobula_store *store);

/* Begins an object of `len` bytes under a name of 16 bytes. Its bytes are to be written to `*data`,
 * which is aligned to 64 bytes and may be written until the object is sealed or aborted. */
int mobula_store_create(const mobula_store *store, const uint8_t id[16], size_t len,
                        mobula_writing **writing, uint8_t **data);

/* Completes an object; frees `writing`, whatever is returned. It can be read by all from here on. */
int mobula_store_seal(mobula_writing *writing);

/* Gives an object up; frees `writing`, whatever is returned. Its name is free again. */
int mobula_store_abort(mobula_writing *writing);

/* Makes an object of `len` bytes at `data`: create, copy, seal. */
int mobula_store_put(const mobula_store *store, const uint8_t id[16], const uint8_t *data, size_t len);

/* Waits until an object is sealed, at most `timeout_ms` milliseconds, for ever if that is negative.
 * Its bytes are at `*data` and must not be written; they stay until mobula_store_release, even if the
 * object is deleted or the server ends. */
int mobula_store_get(const mobula_store *store, const uint8_t id[16], int64_t timeout_ms,
                     mobula_object **object, const uint8_t **data, size_t *len);

/* Gives an object back; frees `object`. */
int mobula_store_release(mobula_object *object);

/* Whether there is a sealed object of this name: 1 or 0. */
int mobula_store_contains(const mobula_store *store, const uint8_t id[16], int *found);

/* Deletes an object: its name is free at once, its memory when nobody holds it. */
int mobula_store_delete(const mobula_store *store, const uint8_t id[16]);

/* The 16 bytes that stand for a text, the same in every program. */
int mobula_store_id_from_name(const char *name, uint8_t id[16]);

/* What went wrong in this thread's last call that failed. The text stays until its next failure. */
const char *mobula_store_last_error(void);

#ifdef __cplusplus
}
#endif

#endif
