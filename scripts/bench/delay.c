// Stands between a client and a server of this machine and makes the way longer, without making it narrower.
//
//   delay PORT MILLISECONDS COUNTS
//
// Listens on a free port of 127.0.0.1, prints its number, and hands every connection on to PORT. MILLISECONDS is the round
// trip: each way takes half of it, and the first bytes of a connection wait one round trip more, as long as TCP needs to
// open one. The file COUNTS has two numbers of 8 bytes, always current: connections and requests of HTTP/1.1 so far.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// More than any machine here moves within half a round trip; it only keeps a stalled receiver from filling the memory.
#define MOST ((size_t)256 << 20)
#define PIECE ((size_t)256 << 10)

struct piece {
    struct piece *next;
    int64_t due;
    size_t start, end;
    char bytes[];
};

// One way of a connection: from `in` to `out`.
struct way {
    int in, out;
    struct piece *first, *last;
    size_t held;
    int ended, closed; // `in` has ended; `out` was told
};

struct pair {
    struct pair *next, *before;
    struct way ways[2]; // to the server, to the client
    int64_t open_at;
    int dead;
};

static int poller;
static struct pair *pairs;
static int64_t half;
static volatile uint64_t *counts;

static void stop(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void watch(int fd, struct pair *pair)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = pair};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
        stop("epoll_ctl");
}

static struct sockaddr_in here(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void opened(int client, int port)
{
    int one = 1, server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = here(port);
    struct pair *pair = calloc(1, sizeof *pair);
    if (server < 0 || !pair)
        stop("socket");
    if (connect(server, (struct sockaddr *)&address, sizeof address)) {
        close(server), close(client), free(pair);
        return;
    }
    fcntl(server, F_SETFL, O_NONBLOCK);
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    pair->ways[0] = (struct way){.in = client, .out = server};
    pair->ways[1] = (struct way){.in = server, .out = client};
    pair->open_at = now() + 2 * half;
    pair->next = pairs;
    if (pairs)
        pairs->before = pair;
    pairs = pair;
    counts[0]++;
    watch(client, pair), watch(server, pair);
}

static int is_request(const char *bytes, size_t length)
{
    static const char *methods[] = {"GET ", "PUT ", "POST ", "HEAD ", "DELETE ", "OPTIONS ", "PROPFIND ", "PROPPATCH ",
                                    "MKCOL ", "MOVE ", "COPY ", "PATCH "};
    for (size_t at = 0; at < sizeof methods / sizeof *methods; at++)
        if (length > strlen(methods[at]) && !memcmp(bytes, methods[at], strlen(methods[at])))
            return 1;
    return 0;
}

static void take(struct pair *pair, struct way *way)
{
    while (!way->ended && way->held < MOST) {
        struct piece *piece = malloc(sizeof *piece + PIECE);
        if (!piece)
            stop("malloc");
        ssize_t got = recv(way->in, piece->bytes, PIECE, 0);
        if (got <= 0) {
            free(piece);
            if (got < 0 && (errno == EAGAIN || errno == EINTR))
                return;
            pair->dead |= got < 0;
            way->ended = 1;
            return;
        }
        // Small pieces do not hold the memory of large ones.
        struct piece *fitted = realloc(piece, sizeof *piece + (size_t)got);
        piece = fitted ? fitted : piece;
        int64_t at = now();
        if (way == &pair->ways[0]) {
            counts[1] += (uint64_t)is_request(piece->bytes, (size_t)got);
            at = at > pair->open_at ? at : pair->open_at;
        }
        *piece = (struct piece){.due = at + half, .end = (size_t)got};
        if (way->last)
            way->last->next = piece;
        else
            way->first = piece;
        way->last = piece;
        way->held += (size_t)got;
    }
}

// Hands on what is due. When the next piece is, or 0.
static int64_t give(struct pair *pair, struct way *way)
{
    while (way->first) {
        struct piece *piece = way->first;
        if (piece->due > now())
            return piece->due;
        ssize_t put = send(way->out, piece->bytes + piece->start, piece->end - piece->start, MSG_NOSIGNAL);
        if (put < 0) {
            pair->dead |= errno != EAGAIN && errno != EINTR;
            return 0;
        }
        piece->start += (size_t)put;
        way->held -= (size_t)put;
        if (piece->start < piece->end)
            continue;
        way->first = piece->next;
        if (!way->first)
            way->last = NULL;
        free(piece);
    }
    if (way->ended && !way->closed) {
        shutdown(way->out, SHUT_WR);
        way->closed = 1;
    }
    return 0;
}

static void ended(struct pair *pair)
{
    for (int at = 0; at < 2; at++) {
        struct way *way = &pair->ways[at];
        while (way->first) {
            struct piece *piece = way->first;
            way->first = piece->next;
            free(piece);
        }
        close(way->in);
    }
    *(pair->before ? &pair->before->next : &pairs) = pair->next;
    if (pair->next)
        pair->next->before = pair->before;
    free(pair);
}

int main(int count, char **words)
{
    if (count != 4)
        return fprintf(stderr, "usage: delay PORT MILLISECONDS COUNTS\n"), 2;
    int port = atoi(words[1]);
    half = (int64_t)(atof(words[2]) * 500000);
    int file = open(words[3], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, 2 * sizeof *counts))
        stop(words[3]);
    counts = mmap(NULL, 2 * sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (counts == MAP_FAILED)
        stop("mmap");
    signal(SIGPIPE, SIG_IGN);

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = here(0);
    socklen_t length = sizeof address;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) || listen(listener, 1024)
        || getsockname(listener, (struct sockaddr *)&address, &length))
        stop("listen");
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event))
        stop("epoll");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);

    for (;;) {
        int64_t next = 0;
        for (struct pair *pair = pairs, *after; pair; pair = after) {
            after = pair->next;
            for (int at = 0; at < 2; at++) {
                take(pair, &pair->ways[at]);
                int64_t due = give(pair, &pair->ways[at]);
                if (due && (!next || due < next))
                    next = due;
            }
            if (pair->dead || (pair->ways[0].closed && pair->ways[1].closed))
                ended(pair);
        }
        int64_t left = next ? next - now() : 3600000000000LL;
        left = left > 0 ? left : 0;
        struct timespec wait = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
        struct epoll_event events[64];
        int ready = epoll_pwait2(poller, events, 64, &wait, NULL);
        if (ready < 0 && errno != EINTR)
            stop("epoll_pwait2");
        for (int at = 0; at < ready; at++) {
            int client;
            while (!events[at].data.ptr && (client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0)
                opened(client, port);
        }
    }
}
