/* The hash table from word to number, and the order of its words. Shared by all that counts or encodes. */
#ifndef RNNPIPE_TABLE_H
#define RNNPIPE_TABLE_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __GNUC__
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address) ((void)(address))
#endif

enum { SHORT = 16 };  /* words up to this long stand in their slot; a word is read as this many bytes at once */

/* Set when the module is first loaded. The seeds are random, so that nobody can prepare a text of colliding words;
 * no result depends on them. masks[n] keeps the first n of 16 bytes, whatever the byte order of the machine. */
static uint64_t seeds[2];
static uint64_t masks[SHORT + 1][2];

typedef struct {
    size_t length;
    uint8_t bytes[];
} LongWord;

typedef struct {
    uint64_t key[2];  /* a short word padded with NUL; of a long one its hash and the address of its LongWord */
    uint64_t value;
    uint32_t length;  /* 0: the slot is free; a longer word than fits here has UINT32_MAX (LongWord is exact) */
    uint32_t order;   /* how many words came into the table before this one */
} Slot;

typedef struct {
    Slot *slots;
    size_t mask;      /* the number of slots, a power of two, less one */
    size_t used;
    size_t long_bytes; /* memory taken by the LongWords */
} Table;

static inline uint64_t multiply_fold(uint64_t a, uint64_t b)
{
#ifdef __SIZEOF_INT128__
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
#else  /* not as strong, but enough for a hash */
    a = (a ^ (b << 32 | b >> 32)) * 0x9e3779b97f4a7c15;
    a = (a ^ a >> 32) * (b | 1);
    return a ^ a >> 29;
#endif
}

static inline uint64_t hash_short(const uint64_t key[2])
{
    return multiply_fold(key[0] ^ seeds[0], key[1] ^ seeds[1]);
}

/* Return the hash of a long word; like all that takes a word, it may read (but not use) SHORT bytes past its end. */
static uint64_t hash_long(const uint8_t *word, size_t length)
{
    uint64_t hash = seeds[0] ^ length, part;
    for (; length > 8; word += 8, length -= 8) {
        memcpy(&part, word, 8);
        hash = multiply_fold(hash ^ part, seeds[1]);
    }
    memcpy(&part, word, 8);
    return multiply_fold(hash ^ (part & masks[length][0]), seeds[1]);
}

static const uint8_t *slot_word(const Slot *slot, size_t *length)
{
    if (slot->length <= SHORT) {
        *length = slot->length;
        return (const uint8_t *)slot->key;
    }
    const LongWord *word = (const LongWord *)(uintptr_t)slot->key[1];
    *length = word->length;
    return word->bytes;
}

static size_t long_word_size(size_t length)
{
    return offsetof(LongWord, bytes) + length + SHORT;
}

static void free_long_words(Table *table)
{
    for (size_t i = 0; table->slots && i <= table->mask; i++)
        if (table->slots[i].length > SHORT)
            free((void *)(uintptr_t)table->slots[i].key[1]);
    table->long_bytes = 0;
}

static void table_free(Table *table)
{
    free_long_words(table);
    free(table->slots);
}

static void table_clear(Table *table)
{
    free_long_words(table);
    memset(table->slots, 0, (table->mask + 1) * sizeof(Slot));
    table->used = 0;
}

/* A word ready to be looked up. */
typedef struct {
    const uint8_t *word;
    size_t length;
    uint64_t key[2];  /* the first half of its slot; of a long word the address is still to come */
    uint64_t hash;
} Lookup;

/* Make a word ready, and have its slot brought near the processor: a dozen of them come at once as soon as one. */
static inline void table_ready(const Table *table, const uint8_t *word, size_t length, Lookup *lookup)
{
    lookup->word = word;
    lookup->length = length;
    if (length <= SHORT) {
        memcpy(lookup->key, word, SHORT);
        lookup->key[0] &= masks[length][0];
        lookup->key[1] &= masks[length][1];
        lookup->hash = hash_short(lookup->key);
    }
    else {
        lookup->hash = lookup->key[0] = hash_long(word, length);
        lookup->key[1] = 0;
    }
    PREFETCH(&table->slots[lookup->hash & table->mask]);
}

/* Return the slot of a word, or the free slot where it belongs. */
static inline Slot *table_find(const Table *table, const Lookup *lookup)
{
    const uint8_t *word = lookup->word;
    const uint64_t *key = lookup->key;
    size_t length = lookup->length;
    if (length <= SHORT) {
        for (size_t i = lookup->hash;; i++) {
            Slot *slot = &table->slots[i & table->mask];
            if (((slot->key[0] ^ key[0]) | (slot->key[1] ^ key[1]) | (slot->length ^ length)) == 0 || !slot->length)
                return slot;
        }
    }
    for (size_t i = lookup->hash;; i++) {
        Slot *slot = &table->slots[i & table->mask];
        if (!slot->length)
            return slot;
        if (slot->length > SHORT && slot->key[0] == key[0]) {
            size_t there;
            const uint8_t *bytes = slot_word(slot, &there);
            if (there == length && memcmp(bytes, word, length) == 0)
                return slot;
        }
    }
}

static int table_grow(Table *table)
{
    size_t count = (table->mask + 1) * 2;
    Slot *slots = count <= SIZE_MAX / sizeof(Slot) ? calloc(count, sizeof(Slot)) : NULL;
    if (!slots)
        return -1;
    for (size_t old = 0; old <= table->mask; old++) {
        const Slot *slot = &table->slots[old];
        if (!slot->length)
            continue;
        size_t i = slot->length <= SHORT ? hash_short(slot->key) : slot->key[0];
        while (slots[i & (count - 1)].length)
            i++;
        slots[i & (count - 1)] = *slot;
    }
    free(table->slots);
    table->slots = slots;
    table->mask = count - 1;
    return 0;
}

/* Return how many words go into a table before it grows. */
static inline size_t table_room(const Table *table)
{
    return (table->mask + 1) / 8 * 5;
}

/* Return the slot of a word, which is put in with the value 0 if it is new; NULL: out of memory, nothing changed. */
static inline Slot *table_put(Table *table, Lookup *lookup)
{
    Slot *slot = table_find(table, lookup);
    size_t length = lookup->length;
    if (slot->length)
        return slot;
    if (table->used >= table_room(table)) {
        if (table->used >= UINT32_MAX || table_grow(table) < 0)
            return NULL;
        slot = table_find(table, lookup);
    }
    if (length > SHORT) {
        LongWord *copy = length < SIZE_MAX / 2 ? malloc(long_word_size(length)) : NULL;
        if (!copy)
            return NULL;
        copy->length = length;
        memcpy(copy->bytes, lookup->word, length);
        memset(copy->bytes + length, 0, SHORT);
        table->long_bytes += long_word_size(length);
        lookup->key[1] = (uintptr_t)copy;
    }
    *slot = (Slot){{lookup->key[0], lookup->key[1]}, 0, length < UINT32_MAX ? (uint32_t)length : UINT32_MAX, (uint32_t)table->used++};
    return slot;
}

/* Return the used slots (to be freed) in the order in which their words came. */
static Slot **table_ordered(const Table *table)
{
    Slot **ordered = malloc((table->used + 1) * sizeof(Slot *));
    for (size_t i = 0; ordered && i <= table->mask; i++)
        if (table->slots[i].length)
            ordered[table->slots[i].order] = &table->slots[i];
    return ordered;
}

/* --- sorting, after which the table is a list and can only be read or cleared --- */

static inline uint64_t big_endian(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | bytes[i];
    return value;
}

/* Compare two words as Python compares bytes. */
static int compare_words(const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length)
{
    int difference = memcmp(a, b, a_length < b_length ? a_length : b_length);
    return difference ? difference : (a_length > b_length) - (a_length < b_length);
}

static int compare_slots(const void *one, const void *other)
{
    size_t a_length, b_length;
    const uint8_t *a = slot_word(one, &a_length), *b = slot_word(other, &b_length);
    /* Either has at least SHORT bytes, with NUL behind the end: most words differ in the first eight. */
    uint64_t a_head = big_endian(a), b_head = big_endian(b);
    if (a_head != b_head)
        return a_head < b_head ? -1 : 1;
    return compare_words(a, a_length, b, b_length);
}

static void table_sort(Table *table)
{
    size_t count = 0;
    for (size_t i = 0; i <= table->mask; i++)
        if (table->slots[i].length) {
            Slot slot = table->slots[i];
            table->slots[i].length = 0;
            table->slots[count++] = slot;
        }
    qsort(table->slots, count, sizeof(Slot), compare_slots);
}

#endif
