/* Words by code point: one pass over the characters of a UTF-8 block, for rules of every script.
 *
 * A table of pages of 256 entries, loaded from Python when a text first needs them, says of each code point what it
 * becomes and what it is to a word. Where characters act on each other (they compose, are put in another order, or have
 * a lower case that depends on the neighbours) the chunk around them, which ends where no rule looks across, goes to
 * Python. So the results are those of the Python rules, and most text never leaves C.
 */
#ifndef RNNPIPE_POINTS_H
#define RNNPIPE_POINTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdatomic.h>
#include "bytes.h"
#include "table.h"
#include "utf8.h"

enum { PAGE = 256, PAGES = 0x110000 / PAGE };

/* What an entry says, as in rnnpipe/text/points.py. */
enum { SEPARATOR, WORD, MARK, JOINER, DELETED, HARD };  /* bits 21 to 23 */
enum { POINT = 0x1fffff, KIND_SHIFT = 21, BOUNDARY = 1 << 24, COMBINING = 1 << 25, SYMBOL = 1 << 26 };

typedef struct {
    PyObject *load_page;  /* from the number of a page to its 256 entries as bytes */
    PyObject *resolve;    /* from the bytes of a chunk to its words, with a space between two */
    _Atomic(uint32_t *) pages[PAGES];
} PointRules;

static void point_rules_free(PointRules *rules)
{
    for (size_t i = 0; i < PAGES; i++)
        free(atomic_load(&rules->pages[i]));
    Py_XDECREF(rules->load_page);
    Py_XDECREF(rules->resolve);
}

/* Return a page, from Python if it is not there yet; NULL with an exception set. `thread` is the one that has let the
 * interpreter's lock go. */
static const uint32_t *get_page(PointRules *rules, uint32_t number, PyThreadState **thread)
{
    uint32_t *page = atomic_load_explicit(&rules->pages[number], memory_order_acquire);
    if (page)
        return page;
    PyEval_RestoreThread(*thread);
    PyObject *bytes = PyObject_CallFunction(rules->load_page, "I", (unsigned int)number);
    if (bytes && (!PyBytes_Check(bytes) || PyBytes_Size(bytes) != PAGE * sizeof(uint32_t)))
        PyErr_SetString(PyExc_ValueError, "a page must be 256 entries of four bytes");
    else if (bytes && !(page = malloc(PAGE * sizeof(uint32_t))))
        PyErr_NoMemory();
    else if (bytes) {
        memcpy(page, PyBytes_AsString(bytes), PAGE * sizeof(uint32_t));
        uint32_t *before = NULL;  /* another thread may have been faster */
        if (!atomic_compare_exchange_strong(&rules->pages[number], &before, page)) {
            free(page);
            page = before;
        }
    }
    Py_XDECREF(bytes);
    *thread = PyEval_SaveThread();
    return page;
}

/* The words of a piece, packed one after the other. */
typedef struct {
    uint8_t *text;
    uint32_t *ends;
    size_t size, text_room, count, ends_room;
} Packed;

/* Make room for so many bytes and words more. */
static int packed_reserve(Packed *words, size_t bytes, size_t count)
{
    if (words->text_room - words->size < bytes) {
        size_t room = 2 * (words->size + bytes);
        uint8_t *more = room < UINT32_MAX ? realloc(words->text, room + SHORT) : NULL;
        if (!more)
            return -1;
        words->text = more;
        words->text_room = room;
    }
    if (words->ends_room - words->count < count) {
        size_t room = 2 * (words->count + count);
        uint32_t *more = realloc(words->ends, room * sizeof(uint32_t));
        if (!more)
            return -1;
        words->ends = more;
        words->ends_room = room;
    }
    return 0;
}

static inline void put_point(Packed *words, uint32_t point)
{
    words->size += write_utf8(words->text + words->size, point);
}

static inline void end_word(Packed *words)
{
    words->ends[words->count++] = (uint32_t)words->size;
}

/* Add the words of a chunk as Python finds them. */
static int resolve_chunk(const PointRules *rules, const uint8_t *chunk, size_t size, Packed *words,
                         PyThreadState **thread)
{
    int status = -1;
    PyEval_RestoreThread(*thread);
    PyObject *found = PyObject_CallFunction(rules->resolve, "y#", (const char *)chunk, (Py_ssize_t)size);
    char *text;
    Py_ssize_t length;
    if (found && PyBytes_AsStringAndSize(found, &text, &length) == 0) {
        if (packed_reserve(words, (size_t)length, (size_t)length / 2 + 1) < 0)
            PyErr_NoMemory();
        else {
            for (Py_ssize_t i = 0; i < length; i++)
                if (text[i] == ' ')
                    end_word(words);
                else
                    words->text[words->size++] = (uint8_t)text[i];
            if (length)
                end_word(words);
            status = 0;
        }
    }
    Py_XDECREF(found);
    *thread = PyEval_SaveThread();
    return status < 0 ? RAISED : 0;
}

/* Set `entry` to that of the character at `*at`, which moves on. */
static inline int next_entry(PointRules *rules, const uint8_t **at, const uint8_t *end, uint32_t *entry,
                             PyThreadState **thread)
{
    int32_t point = read_utf8(at, end);
    if (point < 0)
        return NOT_UTF8;
    const uint32_t *page = atomic_load_explicit(&rules->pages[point / PAGE], memory_order_acquire);
    if (!page && !(page = get_page(rules, (uint32_t)point / PAGE, thread)))
        return RAISED;
    *entry = page[point % PAGE];
    return 0;
}

static int scan_points(PointRules *rules, const uint8_t *at, size_t block_size, TakeWords take, void *context,
                       PyThreadState **thread)
{
    const uint8_t *end = at + block_size, *chunk = at;
    Packed words = {0};
    size_t chunk_size = 0, chunk_count = 0;  /* what was packed when the chunk began */
    uint32_t joiner = 0;                     /* the entry of one that stands behind the letters of a word */
    uint32_t combining = 0;                  /* whether the character before can be put in another order */
    int in_word = 0, status = 0;
    while (at < end && status == 0) {
        if ((words.text_room - words.size < 16 || words.ends_room - words.count < 4) &&
            packed_reserve(&words, 2 * PIECE, PIECE) < 0) {
            status = NO_MEMORY;
            break;
        }
        uint32_t entry;
        if ((status = next_entry(rules, &at, end, &entry, thread)) < 0)
            break;
        uint32_t kind = (entry >> KIND_SHIFT) & 7;
        if (kind == WORD) {
            if (joiner) {
                put_point(&words, joiner & POINT);
                joiner = 0;
            }
            put_point(&words, entry & POINT);
            in_word = 1;
            combining = entry & COMBINING;
            continue;
        }
        if (kind == DELETED)
            continue;
        if (kind == HARD || (entry & combining & COMBINING)) {
            const uint8_t *stop = at;
            while (stop < end) {
                const uint8_t *next = stop;
                if ((status = next_entry(rules, &next, end, &entry, thread)) < 0 || entry & BOUNDARY)
                    break;
                stop = next;
            }
            words.size = chunk_size;
            words.count = chunk_count;
            if (status == 0)
                status = resolve_chunk(rules, chunk, (size_t)(stop - chunk), &words, thread);
            chunk = at = stop;
            chunk_size = words.size;
            chunk_count = words.count;
            joiner = combining = 0;
            in_word = 0;
            continue;
        }
        combining = entry & COMBINING;
        if (kind == MARK && in_word && !joiner) {
            put_point(&words, entry & POINT);
            continue;
        }
        if (kind == JOINER && in_word && !joiner) {
            joiner = entry;
            continue;
        }
        if (in_word) {
            end_word(&words);
            in_word = 0;
        }
        if (joiner & SYMBOL) {
            put_point(&words, joiner & POINT);
            end_word(&words);
        }
        joiner = 0;
        if (entry & SYMBOL) {
            put_point(&words, entry & POINT);
            end_word(&words);
        }
        if (entry & BOUNDARY) {
            if (words.count > PIECE / 4 || words.size > PIECE) {
                status = take(context, words.text, words.text, words.ends, words.count);
                words.size = words.count = 0;
            }
            chunk = at;
            chunk_size = words.size;
            chunk_count = words.count;
        }
    }
    if (status == 0 && words.text) {
        if (in_word)
            end_word(&words);
        if (joiner & SYMBOL) {
            put_point(&words, joiner & POINT);
            end_word(&words);
        }
        status = take(context, words.text, words.text, words.ends, words.count);
    }
    free(words.text);
    free(words.ends);
    return status;
}

#endif
