/* The limit: what fan-out costs when nothing is done but send().
 *
 * GET /stream is answered with the head of an event stream. POST /pub makes one event of the body, sends it to every stream,
 * one send() each, and is then answered. No log, no ids, no channels, no chunks, no keep-alive, one thread. A client whose
 * socket is full goes on from where it was when it has room: the last events are kept once, for all.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEPT 8192 /* events; a client that is further behind is closed */
#define REQUEST 65536
#define READY 256

struct client {
    int fd;
    bool waits;      /* for room in its socket */
    unsigned next;   /* the event to be sent */
    size_t offset;   /* how much of it has been sent */
    size_t received; /* bytes of a request that is not yet whole */
    int place;       /* among the streams; -1: it is none */
    char *request;
};

static struct {
    char *bytes;
    size_t length;
} events[KEPT];
static unsigned head; /* the next event gets this number */
static struct client **streams;
static int stream_count, selector;

static void hang_up(struct client *client) {
    if (client->place >= 0) {
        streams[client->place] = streams[--stream_count];
        streams[client->place]->place = client->place;
    }
    close(client->fd);
    free(client->request);
    free(client);
}

static void wait_for(struct client *client, uint32_t what) {
    struct epoll_event wish = {.events = what, .data.ptr = client};
    epoll_ctl(selector, EPOLL_CTL_MOD, client->fd, &wish);
}

/* Send what the client has not had; false: it is gone. */
static bool send_events(struct client *client) {
    while (client->next != head) {
        if (head - client->next > KEPT) return false;
        char *bytes = events[client->next % KEPT].bytes + client->offset;
        size_t length = events[client->next % KEPT].length - client->offset;
        ssize_t sent = send(client->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN) return false;
        if (sent == (ssize_t)length) {
            client->next++;
            client->offset = 0;
            continue;
        }
        client->offset += sent > 0 ? (size_t)sent : 0;
        if (!client->waits) wait_for(client, EPOLLIN | EPOLLOUT);
        client->waits = true;
        return true;
    }
    if (client->waits) wait_for(client, EPOLLIN);
    client->waits = false;
    return true;
}

static void publish(const char *data, size_t length) {
    free(events[head % KEPT].bytes);
    char *bytes = malloc(length + 8);
    memcpy(bytes, "data: ", 6);
    memcpy(bytes + 6, data, length);
    memcpy(bytes + 6 + length, "\n\n", 2);
    events[head % KEPT].bytes = bytes;
    events[head % KEPT].length = length + 8;
    head++;
    for (int at = stream_count - 1; at >= 0; at--) /* from the end: the last takes the place of one that is gone */
        if (!streams[at]->waits && !send_events(streams[at])) hang_up(streams[at]);
}

static bool answer(struct client *client, const char *text) {
    return send(client->fd, text, strlen(text), MSG_NOSIGNAL) > 0;
}

static bool subscribe(struct client *client) {
    client->next = head;
    client->place = stream_count;
    streams[stream_count++] = client;
    free(client->request);
    client->request = NULL;
    return answer(client, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n");
}

/* Read a request and answer it; false: the client is gone or not understood. */
static bool read_request(struct client *client) {
    char nothing[256];
    if (client->place >= 0) return recv(client->fd, nothing, sizeof nothing, 0) > 0;
    if (!client->request) client->request = malloc(REQUEST + 1);
    ssize_t count = recv(client->fd, client->request + client->received, REQUEST - client->received, 0);
    if (count <= 0) return count < 0 && errno == EAGAIN;
    client->received += (size_t)count;
    client->request[client->received] = 0;
    char *end = strstr(client->request, "\r\n\r\n");
    if (!end) return client->received < REQUEST;
    if (!strncmp(client->request, "GET /stream ", 12)) return subscribe(client);
    if (strncmp(client->request, "POST /pub ", 10)) return answer(client, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    const char *field = strcasestr(client->request, "\r\ncontent-length:");
    size_t length = field ? strtoul(field + 17, NULL, 10) : 0, begin = (size_t)(end + 4 - client->request);
    if (client->received < begin + length) return client->received < REQUEST;
    client->received = 0;
    publish(client->request + begin, length);
    return answer(client, "HTTP/1.1 204 No Content\r\n\r\n");
}

static void greet(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        struct client *client = calloc(1, sizeof *client);
        struct epoll_event wish = {.events = EPOLLIN, .data.ptr = client};
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        client->fd = fd;
        client->place = -1;
        epoll_ctl(selector, EPOLL_CTL_ADD, fd, &wish);
    }
}

int main(int count, char **words) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct rlimit files;
    struct epoll_event ready[READY], wish = {.events = EPOLLIN};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    streams = calloc(files.rlim_cur, sizeof *streams);
    selector = epoll_create1(0);
    address.sin_port = htons((uint16_t)(count > 1 ? atoi(words[1]) : 0));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        perror("bare: listen");
        return 1;
    }
    epoll_ctl(selector, EPOLL_CTL_ADD, listener, &wish);
    for (;;) {
        int got = epoll_wait(selector, ready, READY, -1);
        for (int at = 0; at < got; at++) {
            struct client *client = ready[at].data.ptr;
            if (!client) {
                greet(listener);
                continue;
            }
            bool stays = true;
            if (ready[at].events & EPOLLOUT) stays = send_events(client);
            if (stays && ready[at].events & ~(uint32_t)EPOLLOUT) stays = read_request(client);
            if (!stays) hang_up(client);
        }
    }
}
