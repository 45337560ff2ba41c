/* Run by tests/store_c_api.rs: a store used from C. Arguments: the socket. */
#include "mobula_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void good(int code, const char *what) {
    if (code != MOBULA_OK) {
        fprintf(stderr, "%s: code %d: %s\n", what, code, mobula_store_last_error());
        exit(1);
    }
}

static void expect(int is, const char *what) {
    if (!is) {
        fprintf(stderr, "not so: %s (last error: %s)\n", what, mobula_store_last_error());
        exit(1);
    }
}

int main(int argc, char **argv) {
    mobula_store *store = NULL;
    mobula_writing *writing = NULL;
    mobula_object *object = NULL;
    uint8_t id[16], *data = NULL;
    const uint8_t *bytes = NULL;
    size_t len = 0, n = 1000000;
    int found = -1;

    expect(argc == 2, "one argument");
    expect(mobula_store_connect("/nowhere/socket", &store) == MOBULA_GONE, "no server is GONE");
    expect(strstr(mobula_store_last_error(), "/nowhere/socket") != NULL, "the error names the socket");
    expect(mobula_store_connect(NULL, &store) == MOBULA_ARGUMENT, "null is refused");
    good(mobula_store_connect(argv[1], &store), "connect");

    /* What Rust wrote is read in place. */
    good(mobula_store_id_from_name("from rust", id), "id");
    good(mobula_store_get(store, id, 60000, &object, &bytes, &len), "get");
    expect(len == 9 && memcmp(bytes, "from rust", len) == 0, "Rust's bytes");
    good(mobula_store_release(object), "release");

    /* What is written here Rust reads. */
    good(mobula_store_id_from_name("from c", id), "id");
    expect(mobula_store_get(store, id, 0, &object, &bytes, &len) == MOBULA_NOT_FOUND, "not there yet");
    good(mobula_store_create(store, id, n * sizeof(double), &writing, &data), "create");
    expect((uintptr_t)data % 64 == 0, "aligned");
    for (size_t i = 0; i < n; i++)
        ((double *)data)[i] = (double)i / 2;
    good(mobula_store_contains(store, id, &found), "contains");
    expect(found == 0, "not sealed yet");
    expect(mobula_store_get(store, id, 10, &object, &bytes, &len) == MOBULA_TIMEOUT, "a timeout");
    good(mobula_store_seal(writing), "seal");
    good(mobula_store_contains(store, id, &found), "contains");
    expect(found == 1, "sealed");
    expect(mobula_store_create(store, id, 1, &writing, &data) == MOBULA_EXISTS, "a name is taken once");

    good(mobula_store_id_from_name("given up", id), "id");
    good(mobula_store_create(store, id, 100, &writing, &data), "create");
    good(mobula_store_abort(writing), "abort");
    good(mobula_store_put(store, id, (const uint8_t *)"", 0), "put nothing");
    good(mobula_store_get(store, id, -1, &object, &bytes, &len), "get nothing");
    expect(len == 0, "nothing");
    good(mobula_store_delete(store, id), "delete");
    good(mobula_store_release(object), "release");
    expect(mobula_store_delete(store, id) == MOBULA_NOT_FOUND, "deleted once");
    expect(mobula_store_create(store, id, (size_t)1 << 60, &writing, &data) == MOBULA_FULL, "too large");
    good(mobula_store_disconnect(store), "disconnect");
    puts("c: good");
    return 0;
}
