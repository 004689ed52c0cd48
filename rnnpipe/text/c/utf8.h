/* Reading, writing and checking UTF-8, as strict as Python is. */
#ifndef RNNPIPE_UTF8_H
#define RNNPIPE_UTF8_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Return the code point at `*at`, which moves behind it; -1, and nothing moves, if no valid character stands there. */
static inline int32_t read_utf8(const uint8_t **at, const uint8_t *end)
{
    const uint8_t *byte = *at;
    int32_t lead = byte[0];
    if (lead < 0x80) {
        *at += 1;
        return lead;
    }
    size_t left = (size_t)(end - byte);
    if (lead < 0xe0) {
        if (lead < 0xc2 || left < 2 || (byte[1] & 0xc0) != 0x80)
            return -1;
        *at += 2;
        return (lead & 0x1f) << 6 | (byte[1] & 0x3f);
    }
    if (left < 3 || (byte[1] & 0xc0) != 0x80 || (byte[2] & 0xc0) != 0x80)
        return -1;
    if (lead < 0xf0) {
        int32_t point = (lead & 0x0f) << 12 | (byte[1] & 0x3f) << 6 | (byte[2] & 0x3f);
        if (point < 0x800 || (point >= 0xd800 && point < 0xe000))
            return -1;
        *at += 3;
        return point;
    }
    if (left < 4 || (byte[3] & 0xc0) != 0x80)
        return -1;
    int32_t point = (lead & 0x07) << 18 | (byte[1] & 0x3f) << 12 | (byte[2] & 0x3f) << 6 | (byte[3] & 0x3f);
    if (lead > 0xf4 || point < 0x10000 || point > 0x10ffff)
        return -1;
    *at += 4;
    return point;
}

/* Write a code point; return how many bytes it has. */
static inline size_t write_utf8(uint8_t *to, uint32_t point)
{
    if (point < 0x80) {
        to[0] = (uint8_t)point;
        return 1;
    }
    if (point < 0x800) {
        to[0] = (uint8_t)(0xc0 | point >> 6);
        to[1] = (uint8_t)(0x80 | (point & 0x3f));
        return 2;
    }
    if (point < 0x10000) {
        to[0] = (uint8_t)(0xe0 | point >> 12);
        to[1] = (uint8_t)(0x80 | (point >> 6 & 0x3f));
        to[2] = (uint8_t)(0x80 | (point & 0x3f));
        return 3;
    }
    to[0] = (uint8_t)(0xf0 | point >> 18);
    to[1] = (uint8_t)(0x80 | (point >> 12 & 0x3f));
    to[2] = (uint8_t)(0x80 | (point >> 6 & 0x3f));
    to[3] = (uint8_t)(0x80 | (point & 0x3f));
    return 4;
}

static inline uint64_t has_zero_byte(uint64_t eight_ascii)
{
    return (eight_ascii - 0x0101010101010101) & ~eight_ascii & 0x8080808080808080;
}

/* Return the number of characters, CR LF being one; -1 if the bytes are not UTF-8 or NUL is among them. */
static int64_t count_characters(const uint8_t *at, size_t size)
{
    const uint8_t *end = at + size;
    int64_t characters = 0;
    while (at < end) {
        uint64_t eight;
        while (end - at >= 8) {
            memcpy(&eight, at, 8);
            if (eight & 0x8080808080808080 || has_zero_byte(eight) || has_zero_byte(eight ^ 0x0d0d0d0d0d0d0d0d))
                break;
            at += 8;
            characters += 8;
        }
        for (int i = 0; i < 8 && at < end; i++) {
            int carriage_return = *at == '\r';
            if (read_utf8(&at, end) <= 0)
                return -1;
            if (carriage_return && at < end && *at == '\n')
                at++;
            characters++;
        }
    }
    return characters;
}

#endif
