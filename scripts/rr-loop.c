/* The least that a transaction takes: blocking send and recv of one byte, and nothing else. What `plumb bench`
 * measures is held against it by scripts/bench-all.
 *
 *     rr-loop server TCP_RR|TCP_CRR|UDP_RR PORT
 *     rr-loop client TCP_RR|TCP_CRR|UDP_RR PORT ADDRESS SECONDS     prints transactions a second
 */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t over;

static void end(int signal) { (void)signal; over = 1; }

static int check(int outcome, const char *what) {
    if (outcome < 0) { perror(what); exit(1); }
    return outcome;
}

static int bound(int kind, int port) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
    int yes = 1, s = check(socket(AF_INET, kind, 0), "socket");
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    check(bind(s, (struct sockaddr *)&here, sizeof here), "bind");
    return s;
}

static void serve(const char *test, int port) {
    char byte;
    if (!strcmp(test, "UDP_RR")) {
        int s = bound(SOCK_DGRAM, port);
        for (;;) {
            struct sockaddr_in from;
            socklen_t length = sizeof from;
            if (recvfrom(s, &byte, 1, 0, (struct sockaddr *)&from, &length) == 1)
                sendto(s, &byte, 1, 0, (struct sockaddr *)&from, length);
        }
    }
    int listener = bound(SOCK_STREAM, port);
    check(listen(listener, 128), "listen");
    for (;;) {
        int s = check(accept(listener, NULL, NULL), "accept");
        while (recv(s, &byte, 1, 0) == 1 && send(s, &byte, 1, 0) == 1) {}
        close(s);
    }
}

static int connected(int kind, const struct sockaddr_in *to) {
    int s = check(socket(AF_INET, kind, 0), "socket");
    check(connect(s, (const struct sockaddr *)to, sizeof *to), "connect");
    return s;
}

static void ask(const char *test, int port, const char *address, int seconds) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timespec before, after;
    char byte = 0;
    long count = 0;
    inet_pton(AF_INET, address, &to.sin_addr);
    signal(SIGALRM, end);
    int each = !strcmp(test, "TCP_CRR");
    int s = each ? -1 : connected(strcmp(test, "UDP_RR") ? SOCK_STREAM : SOCK_DGRAM, &to);
    clock_gettime(CLOCK_MONOTONIC, &before);
    alarm(seconds);
    while (!over) {
        if (each) s = connected(SOCK_STREAM, &to);
        if (send(s, &byte, 1, 0) != 1 || recv(s, &byte, 1, 0) != 1) break;
        if (each) {
            shutdown(s, SHUT_WR);
            recv(s, &byte, 1, 0);
            close(s);
        }
        count++;
    }
    clock_gettime(CLOCK_MONOTONIC, &after);
    printf("%.1f\n", count / (after.tv_sec - before.tv_sec + (after.tv_nsec - before.tv_nsec) / 1e9));
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "server")) serve(argv[2], atoi(argv[3]));
    if (argc == 6 && !strcmp(argv[1], "client")) { ask(argv[2], atoi(argv[3]), argv[4], atoi(argv[5])); return 0; }
    fprintf(stderr, "usage: rr-loop server TEST PORT | client TEST PORT ADDRESS SECONDS\n");
    return 2;
}
