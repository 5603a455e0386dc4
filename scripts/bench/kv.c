// Times one operation on many small records of a folder, on whatever file system it is.
//
//   kv FOLDER OPERATION COUNT [FILES]
//
// Prints microseconds per operation (per entry for the listings). Records are rec-0, rec-1, ...; an operation that works on
// records that are there takes them in turn, FILES of them (default: COUNT). A record is 1 KiB of JSON, or
// what the compiler was told with -D RECORD=BYTES.
//
//   create     open(O_CREAT|O_EXCL), write, close      read       open, read, close
//   overwrite  open(O_TRUNC), write, close             stat       stat
//   settype    setxattr user.mime_type                 gettype    getxattr user.mime_type
//   rename     rec-N to new-N                          unlink     removes rec-N
//   names      every name of the folder, as ls -f      rows       every name and its stat, as ls -l
//   dual       makes the three files of a record in layout dual, without storefs: value and sidecar are written in FOLDER.aside
//              (made when missing) and renamed into FOLDER, beside a link to the value
//   fill       makes COUNT records of one byte; not timed: prints nothing

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#ifndef RECORD
#define RECORD 1024
#endif
#define TYPE "user.mime_type"

static const char *folder, *operation;
static char record[RECORD];

static void stop(const char *call, const char *path)
{
    fprintf(stderr, "kv %s: %s %s: %s\n", operation, call, path, strerror(errno));
    exit(1);
}

static double microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static const char *name(const char *prefix, long number)
{
    static char paths[2][4096];
    static int turn;
    turn = !turn;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s-%ld", folder, prefix, number);
    return paths[turn];
}

static void put(const char *path, int flags, size_t length)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0644);
    if (fd < 0)
        stop("open", path);
    if (write(fd, record, length) != (ssize_t)length)
        stop("write", path);
    if (close(fd))
        stop("close", path);
}

static void get(const char *path)
{
    char bytes[2 * RECORD];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        stop("open", path);
    if (read(fd, bytes, sizeof bytes) != RECORD)
        stop("read", path);
    if (close(fd))
        stop("close", path);
}

static void create(long n) { put(name("rec", n), O_CREAT | O_EXCL, RECORD); }
static void overwrite(long n) { put(name("rec", n), O_TRUNC, RECORD); }
static void fill(long n) { put(name("rec", n), O_CREAT | O_EXCL, 1); }
static void fetch(long n) { get(name("rec", n)); }

static void put_aside(const char *path, const void *bytes, size_t length, const char *mark)
{
    char aside[4096];
    snprintf(aside, sizeof aside, "%s.aside/file", folder);
    int fd = open(aside, O_WRONLY | O_CLOEXEC | O_CREAT | O_EXCL, 0644);
    if (fd < 0 && errno == ENOENT && !mkdir(dirname(strdup(aside)), 0755))
        fd = open(aside, O_WRONLY | O_CLOEXEC | O_CREAT | O_EXCL, 0644);
    if (fd < 0)
        stop("open", aside);
    if (write(fd, bytes, length) != (ssize_t)length)
        stop("write", aside);
    if (mark && fsetxattr(fd, "user.storefs.dual", mark, strlen(mark), 0))
        stop("fsetxattr", aside);
    if (close(fd))
        stop("close", aside);
    if (rename(aside, path))
        stop("rename", path);
}

static void dual(long n)
{
    char value[4096], sidecar[4096], text[256];
    const char *key = name("rec", n);
    const char *stem = strrchr(key, '/') + 1;
    snprintf(value, sizeof value, "%s.json", key);
    snprintf(sidecar, sizeof sidecar, "%s.__metadata__.json", key);
    snprintf(text, sizeof text,
             "{\n  \"key\": \"%s\",\n  \"content_type\": \"application/json; charset=utf-8\",\n  \"size\": %d,\n"
             "  \"contentType\": \"application/json; charset=utf-8\",\n  \"extension\": \"json\"\n}",
             stem, RECORD);
    put_aside(value, record, RECORD, "400-0123456789abcdef");
    put_aside(sidecar, text, strlen(text), NULL);
    if (symlink(strrchr(value, '/') + 1, key))
        stop("symlink", key);
}

static void look(long n)
{
    struct stat meta;
    if (stat(name("rec", n), &meta))
        stop("stat", name("rec", n));
}

static void settype(long n)
{
    static const char type[] = "application/x-measured; charset=utf-8";
    if (setxattr(name("rec", n), TYPE, type, sizeof type - 1, 0))
        stop("setxattr", name("rec", n));
}

static void gettype(long n)
{
    char type[256];
    if (getxattr(name("rec", n), TYPE, type, sizeof type) < 0)
        stop("getxattr", name("rec", n));
}

static void move(long n)
{
    if (rename(name("rec", n), name("new", n)))
        stop("rename", name("rec", n));
}

static void drop(long n)
{
    if (unlink(name("rec", n)))
        stop("unlink", name("rec", n));
}

// The kernel's form of a directory entry (getdents64(2)).
struct entry {
    unsigned long long ino;
    long long offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

// Reads the folder with the buffer of glibc's readdir, 32 KiB; gives the number of records.
static long walk(int with_stat)
{
    static char space[32 * 1024] __attribute__((aligned(8)));
    struct statx meta;
    long seen = 0, got;
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        stop("open", folder);
    while ((got = syscall(SYS_getdents64, fd, space, sizeof space)) > 0)
        for (long at = 0; at < got;) {
            struct entry *one = (struct entry *)(space + at);
            at += one->length;
            if (!strcmp(one->name, ".") || !strcmp(one->name, ".."))
                continue;
            seen++;
            if (with_stat && statx(fd, one->name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &meta))
                stop("statx", one->name);
        }
    if (got < 0)
        stop("getdents", folder);
    close(fd);
    return seen;
}

static const struct {
    const char *name;
    void (*run)(long);
} operations[] = {
    {"create", create}, {"overwrite", overwrite}, {"fill", fill},     {"read", fetch}, {"stat", look},
    {"settype", settype}, {"gettype", gettype},   {"rename", move},   {"unlink", drop}, {"dual", dual},
};

int main(int count, char **words)
{
    if (count < 4) {
        fprintf(stderr, "usage: kv FOLDER OPERATION COUNT [FILES]\n");
        return 2;
    }
    folder = words[1];
    operation = words[2];
    long times = atol(words[3]), files = count > 4 ? atol(words[4]) : times;
    memset(record, 'x', sizeof record);
    memcpy(record, "{\"value\":\"", 10);
    memcpy(record + sizeof record - 2, "\"}", 2);
    double begun = microseconds();
    if (!strcmp(operation, "names") || !strcmp(operation, "rows")) {
        long seen = walk(operation[0] == 'r');
        if (seen != times) {
            fprintf(stderr, "kv %s: %ld records in %s, not %ld\n", operation, seen, folder, times);
            return 1;
        }
        printf("%.4f\n", (microseconds() - begun) / times);
        return 0;
    }
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (!strcmp(operation, operations[i].name)) {
            for (long n = 0; n < times; n++)
                operations[i].run(n % files);
            if (strcmp(operation, "fill"))
                printf("%.4f\n", (microseconds() - begun) / times);
            return 0;
        }
    fprintf(stderr, "kv: no operation '%s'\n", operation);
    return 2;
}
