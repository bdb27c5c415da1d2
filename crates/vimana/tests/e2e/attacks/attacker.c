/*
 * A workload that means ill: it tries what it is told and says how that went, one line for each try.
 *
 *   attacker WORD COMMAND ARG ... , WORD COMMAND ARG ... , ...
 *
 * A line is the word, then `done` or `held` with the reason. What is sent has the word in it, by which whoever gets it can tell
 * which try it was. Where a command has more than one way to find out, the target's own word counts, not this one.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE = 1500 };

static const char *word;
static const char *card;
static char buffer[1 << 16];

static int end(int error, const char *what) {
  printf("%s held %s: %s\n", word, what, strerror(error));
  return 1;
}
#define HELD(what) return end(errno, what)

/* ---- Through the front door: what any program may ask for ---- */

static socklen_t address(const char *text, int port, struct sockaddr_storage *to) {
  struct sockaddr_in *four = (void *)to;
  struct sockaddr_in6 *six = (void *)to;
  memset(to, 0, sizeof *to);
  if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons((uint16_t)port);
    return sizeof *four;
  }
  if (inet_pton(AF_INET6, text, &six->sin6_addr) != 1) {
    fprintf(stderr, "%s is no address\n", text);
    exit(99);
  }
  six->sin6_family = AF_INET6;
  six->sin6_port = htons((uint16_t)port);
  if (IN6_IS_ADDR_LINKLOCAL(&six->sin6_addr) || IN6_IS_ADDR_MULTICAST(&six->sin6_addr))
    six->sin6_scope_id = if_nametoindex(card);
  return sizeof *six;
}

/* Connects within some time. */
static int reach(int fd, const struct sockaddr *to, socklen_t length, int patience) {
  fcntl(fd, F_SETFL, O_NONBLOCK);
  if (connect(fd, to, length) == 0) return 0;
  if (errno != EINPROGRESS) return -1;
  struct pollfd wait = {.fd = fd, .events = POLLOUT};
  if (poll(&wait, 1, patience) == 0) {
    errno = ETIMEDOUT;
    return -1;
  }
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  errno = error;
  return error ? -1 : 0;
}

static int tcp_to(const char *text, int port) {
  struct sockaddr_storage to;
  socklen_t length = address(text, port, &to);
  int fd = socket(to.ss_family, SOCK_STREAM, 0);
  if (fd < 0) HELD("socket");
  if (reach(fd, (void *)&to, length, PATIENCE) < 0) {
    int error = errno;
    close(fd);
    return end(error, "connect");
  }
  fcntl(fd, F_SETFL, 0);
  if (send(fd, word, strlen(word), MSG_NOSIGNAL) < 0) HELD("send");
  shutdown(fd, SHUT_WR);
  /* Something may have answered that isn't the target. */
  struct pollfd wait = {.fd = fd, .events = POLLIN};
  poll(&wait, 1, PATIENCE);
  close(fd);
  printf("%s done\n", word);
  return 0;
}

static int tcp(char **arg) { return tcp_to(arg[0], atoi(arg[1])); }

static int udp(char **arg) {
  struct sockaddr_storage to;
  socklen_t length = address(arg[0], atoi(arg[1]), &to);
  int fd = socket(to.ss_family, SOCK_DGRAM, 0), yes = 1;
  setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &yes, sizeof yes);
  for (int i = 0; i < 3; i++)
    if (sendto(fd, word, strlen(word), 0, (void *)&to, length) < 0) HELD("send");
  close(fd);
  printf("%s done\n", word);
  return 0;
}

/* Its own default gateway, which user-mode networks make the host's loopback of. */
static bool own_gateway(struct in_addr *found) {
  FILE *routes = fopen("/proc/net/route", "r");
  unsigned destination, via;
  char line[256], name[32];
  while (routes && fgets(line, sizeof line, routes))
    if (sscanf(line, "%31s %x %x", name, &destination, &via) == 3 && destination == 0) {
      found->s_addr = via;
      fclose(routes);
      return true;
    }
  errno = ENETUNREACH;
  return false;
}

static int gateway(char **arg) {
  struct in_addr found;
  if (!own_gateway(&found)) HELD("a gateway");
  return tcp_to(inet_ntoa(found), atoi(arg[0]));
}

/* Every port from one to another; says how many are open. */
static int scan(char **arg) {
  int open = 0, from = atoi(arg[1]), to = atoi(arg[2]);
  enum { AT_ONCE = 256 };
  for (int port = from; port <= to; port += AT_ONCE) {
    struct pollfd fds[AT_ONCE];
    int count = 0;
    for (int p = port; p < port + AT_ONCE && p <= to; p++) {
      struct sockaddr_storage target;
      socklen_t length = address(arg[0], p, &target);
      int fd = socket(target.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
      if (fd < 0) HELD("socket");
      if (connect(fd, (void *)&target, length) == 0) {
        open++;
        close(fd);
      } else if (errno == EINPROGRESS)
        fds[count++] = (struct pollfd){.fd = fd, .events = POLLOUT};
      else
        close(fd);
    }
    for (int left = count, tries = 0; left > 0 && tries < 40; tries++) {
      if (poll(fds, (nfds_t)count, 10) <= 0) continue;
      for (int i = 0; i < count; i++)
        if (fds[i].fd >= 0 && fds[i].revents) {
          int error = 0;
          socklen_t size = sizeof error;
          getsockopt(fds[i].fd, SOL_SOCKET, SO_ERROR, &error, &size);
          open += error == 0;
          close(fds[i].fd);
          fds[i].fd = -1;
          left--;
        }
    }
    for (int i = 0; i < count; i++)
      if (fds[i].fd >= 0) close(fds[i].fd);
  }
  if (open)
    printf("%s done %d open\n", word, open);
  else
    printf("%s held none of %d ports is open\n", word, to - from + 1);
  return 0;
}

static uint16_t sum(const void *bytes, size_t length, uint32_t begin) {
  const uint8_t *at = bytes;
  uint32_t total = begin;
  for (size_t i = 0; i < length; i++) total += i % 2 ? at[i] : (uint32_t)at[i] << 8;
  while (total >> 16) total = (total & 0xffff) + (total >> 16);
  return htons((uint16_t)~total);
}

static int ping(char **arg) {
  struct sockaddr_storage to;
  socklen_t length = address(arg[0], 0, &to);
  bool six = to.ss_family == AF_INET6;
  int fd = socket(to.ss_family, SOCK_RAW, six ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
  if (fd < 0) HELD("socket");
  struct icmphdr echo = {.type = six ? 128 : 8, .un.echo = {htons(77), htons(1)}};
  memcpy(buffer, &echo, sizeof echo);
  memcpy(buffer + sizeof echo, word, strlen(word));
  size_t size = sizeof echo + strlen(word);
  ((struct icmphdr *)buffer)->checksum = sum(buffer, size, 0);
  if (sendto(fd, buffer, size, 0, (void *)&to, length) < 0) HELD("send");
  for (int tries = 0; tries < 20; tries++) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    if (poll(&wait, 1, PATIENCE / 10) <= 0) continue;
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    const char *message = six ? buffer : buffer + 20;
    if (got > 8 && message[0] == (six ? (char)129 : 0) && memmem(buffer, (size_t)got, word, strlen(word))) {
      printf("%s done\n", word);
      return 0;
    }
  }
  errno = ETIMEDOUT;
  HELD("answer");
}

/* A question for a name; says which address came back, if any. */
static bool look_up(const char *name, char *found) {
  char server[64] = "", line[256];
  FILE *file = fopen("/etc/resolv.conf", "r");
  while (file && fgets(line, sizeof line, file))
    if (sscanf(line, "nameserver %63s", server) == 1) break;
  struct sockaddr_storage to;
  socklen_t length = address(server, 53, &to);
  unsigned char question[300] = {0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0};
  size_t at = 12;
  while (*name) {
    size_t label = strcspn(name, ".");
    question[at++] = (unsigned char)label;
    memcpy(question + at, name, label);
    at += label;
    name += label + (name[label] == '.');
  }
  question[at++] = 0;
  memcpy(question + at, "\0\1\0\1", 4);
  at += 4;
  int fd = socket(to.ss_family, SOCK_DGRAM, 0);
  if (connect(fd, (void *)&to, length) < 0 || send(fd, question, at, 0) < 0) return false;
  struct pollfd wait = {.fd = fd, .events = POLLIN};
  if (poll(&wait, 1, 2 * PATIENCE) <= 0) return false;
  ssize_t got = recv(fd, buffer, sizeof buffer, 0);
  close(fd);
  if (got < (ssize_t)at + 16 || (buffer[3] & 15) || buffer[7] == 0) return false;
  inet_ntop(AF_INET, buffer + got - 4, found, 64);
  return true;
}

/* Tells whoever answers for a domain the word, in a name. */
static int name(char **arg) {
  char found[64], asked[256];
  snprintf(asked, sizeof asked, "%s.%s", word, arg[0]);
  errno = ENOENT;
  if (!look_up(asked, found)) HELD("name");
  printf("%s done %s\n", word, found);
  return 0;
}

/* Goes where a name leads. */
static int rebind(char **arg) {
  char found[64];
  errno = ENOENT;
  if (!look_up(arg[0], found)) HELD("name");
  return tcp_to(found, atoi(arg[1]));
}

static int flood(char **arg) {
  struct sockaddr_storage to;
  socklen_t length = address(arg[0], atoi(arg[1]), &to);
  int fd = socket(to.ss_family, SOCK_DGRAM, 0);
  struct timespec begin, now;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  memcpy(buffer, word, strlen(word));
  do {
    for (int i = 0; i < 16; i++) sendto(fd, buffer, 1200, 0, (void *)&to, length);
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while (now.tv_sec - begin.tv_sec < atoi(arg[2]));
  printf("%s done\n", word);
  return 0;
}

/* ---- With the rights of root: whole packets ---- */

static uint32_t own_address(void) {
  struct ifreq request = {0};
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  strncpy(request.ifr_name, card, IFNAMSIZ - 1);
  ioctl(fd, SIOCGIFADDR, &request);
  close(fd);
  return ((struct sockaddr_in *)&request.ifr_addr)->sin_addr.s_addr;
}

/* An IPv4 packet: header with options, offset and protocol as told. The kernel fills in what is 0. */
static int packet(uint32_t from, const char *to, int protocol, uint16_t offset, const void *options, size_t more,
                  const void *payload, size_t length) {
  int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  if (fd < 0) HELD("raw socket");
  struct iphdr *ip = (void *)buffer;
  memset(ip, 0, sizeof *ip);
  size_t header = sizeof *ip + more;
  *ip = (struct iphdr){.version = 4, .ihl = (header / 4) & 15, .ttl = 64, .protocol = (uint8_t)protocol};
  ip->id = htons(77);
  ip->frag_off = htons(offset);
  ip->saddr = from;
  inet_pton(AF_INET, to, &ip->daddr);
  memcpy(buffer + sizeof *ip, options, more);
  memcpy(buffer + header, payload, length);
  ip->tot_len = htons((uint16_t)(header + length));
  struct sockaddr_in target = {.sin_family = AF_INET, .sin_addr.s_addr = ip->daddr};
  if (sendto(fd, buffer, header + length, 0, (void *)&target, sizeof target) < 0) {
    int error = errno;
    close(fd);
    return end(error, "raw packet");
  }
  close(fd);
  return 0;
}

static size_t datagram(int port, char *into) {
  struct udphdr head = {.source = htons(4000), .dest = htons((uint16_t)port)};
  size_t length = sizeof head + strlen(word);
  head.len = htons((uint16_t)length);
  memcpy(into, &head, sizeof head);
  memcpy(into + sizeof head, word, strlen(word));
  return length;
}

static int sent(int failed) {
  if (!failed) printf("%s done\n", word);
  return failed;
}

/* In another's name. */
static int forge(char **arg) {
  char load[256];
  size_t length = datagram(atoi(arg[2]), load);
  return sent(packet(inet_addr(arg[0]), arg[1], IPPROTO_UDP, 0, "", 0, load, length));
}

/* In two parts, the first too short for its ports to be all of it. */
static int fragment(char **arg) {
  char load[256];
  size_t length = datagram(atoi(arg[1]), load);
  enum { MORE = 0x2000 };
  return sent(packet(own_address(), arg[0], IPPROTO_UDP, MORE, "", 0, load, 8) ||
              packet(own_address(), arg[0], IPPROTO_UDP, 1, "", 0, load + 8, length - 8));
}

/* By a way that the sender chooses: loose source route (RFC 791). */
static int route(char **arg) {
  char load[256], option[8] = {(char)131, 7, 4, 0, 0, 0, 0, 0};
  inet_pton(AF_INET, arg[0], option + 3);
  size_t length = datagram(atoi(arg[2]), load);
  return sent(packet(own_address(), arg[1], IPPROTO_UDP, 0, option, 8, load, length));
}

/* A segment of a connection that was never opened. */
static int segment(char **arg) {
  struct tcphdr head = {.source = htons(4000), .dest = htons((uint16_t)atoi(arg[1])), .doff = 5, .ack = 1, .psh = 1};
  head.seq = head.ack_seq = htonl(1);
  head.window = htons(1000);
  char load[256];
  size_t length = sizeof head + strlen(word);
  memcpy(load, &head, sizeof head);
  memcpy(load + sizeof head, word, strlen(word));
  struct in_addr to;
  inet_pton(AF_INET, arg[0], &to);
  uint32_t pseudo = IPPROTO_TCP + (uint32_t)length, from = own_address();
  for (int i = 0; i < 2; i++) {
    uint32_t half = ntohl(i ? to.s_addr : from);
    pseudo += (half >> 16) + (half & 0xffff);
  }
  ((struct tcphdr *)load)->check = sum(load, length, pseudo);
  return sent(packet(from, arg[0], IPPROTO_TCP, 0, "", 0, load, length));
}

static int protocol(char **arg) {
  return sent(packet(own_address(), arg[1], atoi(arg[0]), 0, "", 0, word, strlen(word)));
}

/* ---- Whole frames ---- */

static int frame(const void *bytes, size_t length) {
  int fd = socket(AF_PACKET, SOCK_RAW, 0);
  if (fd < 0) HELD("packet socket");
  struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(card), .sll_halen = 6};
  memcpy(to.sll_addr, bytes, 6);
  for (int i = 0; i < 3; i++)
    if (sendto(fd, bytes, length, 0, (void *)&to, sizeof to) < 0) {
      int error = errno;
      close(fd);
      return end(error, "frame");
    }
  close(fd);
  printf("%s done\n", word);
  return 0;
}

static void own_hardware_address(uint8_t *into) {
  struct ifreq request = {0};
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  strncpy(request.ifr_name, card, IFNAMSIZ - 1);
  ioctl(fd, SIOCGIFHWADDR, &request);
  memcpy(into, request.ifr_hwaddr.sa_data, 6);
  close(fd);
}

static const uint8_t STRANGER[6] = {2, 0, 0, 0xba, 0xd0, 1};

/* Asks its gateway for something, as if it had somebody else's address (RFC 826). */
static int arp(char **arg) {
  struct in_addr asked;
  if (!own_gateway(&asked)) HELD("a gateway");
  uint8_t bytes[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  memcpy(bytes + 6, STRANGER, 6);
  memcpy(bytes + 12, "\x08\x06\0\1\x08\0\6\4\0\1", 10);
  memcpy(bytes + 22, STRANGER, 6);
  inet_pton(AF_INET, arg[0], bytes + 28);
  memcpy(bytes + 38, &asked, 4);
  return frame(bytes, sizeof bytes);
}

/* As somebody else: another hardware address before a datagram of its own to everybody. */
static int mac(char **arg) {
  uint8_t bytes[300] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  memcpy(bytes + 6, STRANGER, 6);
  memcpy(bytes + 12, "\x08\0", 2);
  char load[256];
  size_t length = datagram(atoi(arg[1]), load);
  struct iphdr ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .saddr = own_address()};
  ip.tot_len = htons((uint16_t)(sizeof ip + length));
  inet_pton(AF_INET, arg[0], &ip.daddr);
  ip.check = sum(&ip, sizeof ip, 0);
  memcpy(bytes + 14, &ip, sizeof ip);
  memcpy(bytes + 14 + sizeof ip, load, length);
  return frame(bytes, 14 + sizeof ip + length);
}

/* An offer of an address and a gateway to whoever asked (RFC 2131): to the port of clients, from that of servers. */
static int dhcp(char **arg) {
  (void)arg;
  uint8_t bytes[400] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  own_hardware_address(bytes + 6);
  memcpy(bytes + 12, "\x08\0", 2);
  char load[256];
  size_t length = datagram(68, load);
  memcpy(load, "\0\x43", 2);
  struct iphdr ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .saddr = own_address()};
  ip.tot_len = htons((uint16_t)(sizeof ip + length));
  ip.daddr = INADDR_BROADCAST;
  ip.check = sum(&ip, sizeof ip, 0);
  memcpy(bytes + 14, &ip, sizeof ip);
  memcpy(bytes + 14 + sizeof ip, load, length);
  return frame(bytes, 14 + sizeof ip + length);
}

/* An IPv6 packet to all nodes, from the link-local address, with an ICMPv6 message. */
static int announce(const void *message, size_t length) {
  uint8_t bytes[400] = {0x33, 0x33, 0, 0, 0, 1};
  own_hardware_address(bytes + 6);
  memcpy(bytes + 12, "\x86\xdd", 2);
  struct ip6_hdr ip = {.ip6_flow = htonl(6u << 28), .ip6_plen = htons((uint16_t)length), .ip6_nxt = 58, .ip6_hlim = 255};
  inet_pton(AF_INET6, "fe80::bad", &ip.ip6_src);
  inet_pton(AF_INET6, "ff02::1", &ip.ip6_dst);
  memcpy(bytes + 14, &ip, sizeof ip);
  memcpy(bytes + 54, message, length);
  uint32_t pseudo = 58 + (uint32_t)length;
  for (size_t i = 0; i < 32; i++) pseudo += i % 2 ? bytes[22 + i] : (uint32_t)bytes[22 + i] << 8;
  uint16_t check = sum(bytes + 54, length, pseudo);
  memcpy(bytes + 56, &check, 2);
  return frame(bytes, 54 + length);
}

/* Says that it is a router, for ever, and for everybody. */
static int router(char **arg) {
  uint8_t message[48] = {134, 0, 0, 0, 64, 0, 0xff, 0xff};
  message[16] = 3, message[17] = 4, message[18] = 64, message[19] = 0xc0;
  memset(message + 20, 0xff, 8);
  inet_pton(AF_INET6, arg[0], message + 32);
  return announce(message, sizeof message);
}

/* ---- Other ways to other processes of the machine ---- */

static int abstract(char **arg) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  size_t length = strlen(arg[0]);
  memcpy(to.sun_path + 1, arg[0], length);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (connect(fd, (void *)&to, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)) < 0) HELD("connect");
  if (send(fd, word, strlen(word), MSG_NOSIGNAL) < 0) HELD("send");
  printf("%s done\n", word);
  return 0;
}

static int segment_of_memory(char **arg) {
  char *there = shmat(atoi(arg[0]), NULL, 0);
  if (there == (void *)-1) HELD("attach");
  printf("%s done\n", word);
  return 0;
}

static int signal_to(char **arg) {
  if (kill(atoi(arg[0]), 0) < 0) HELD("signal");
  printf("%s done\n", word);
  return 0;
}

static int see(char **arg) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%s/cmdline", arg[0]);
  int fd = open(path, O_RDONLY);
  if (fd < 0) HELD("open");
  ssize_t got = read(fd, buffer, sizeof buffer - 1);
  close(fd);
  if (got > 0 && memmem(buffer, (size_t)got, arg[1], strlen(arg[1]))) {
    printf("%s done\n", word);
    return 0;
  }
  errno = ESRCH;
  HELD("another one");
}

/* ---- Files ---- */

static int read_file(char **arg) {
  int fd = open(arg[0], O_RDONLY);
  if (fd < 0) HELD("open");
  ssize_t got = read(fd, buffer, sizeof buffer);
  if (got < 0) HELD("read");
  close(fd);
  if (memmem(buffer, (size_t)got, arg[1], strlen(arg[1]))) {
    printf("%s done\n", word);
    return 0;
  }
  errno = ENOENT;
  HELD("the words");
}

static int write_file(char **arg) {
  int fd = open(arg[0], O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (fd < 0) HELD("open");
  if (write(fd, word, strlen(word)) < 0) HELD("write");
  close(fd);
  printf("%s done\n", word);
  return 0;
}

static int link_file(char **arg) {
  if (link(arg[0], arg[1]) < 0) HELD("link");
  printf("%s done\n", word);
  return 0;
}

static int rename_file(char **arg) {
  if (rename(arg[0], arg[1]) < 0) HELD("rename");
  printf("%s done\n", word);
  return 0;
}

/* Plants a symbolic link and goes through it. */
static int plant(char **arg) {
  unlink(arg[1]);
  if (symlink(arg[0], arg[1]) < 0) HELD("symlink");
  return read_file(arg + 1);
}

/* One process swaps a folder with a link to another one, as fast as it can; another reads through the name. */
static int race(char **arg) {
  char folder[256], link[256], path[300];
  snprintf(folder, sizeof folder, "%s/racing", arg[0]);
  snprintf(link, sizeof link, "%s/racing.link", arg[0]);
  snprintf(path, sizeof path, "%s/racing/secret", arg[0]);
  mkdir(folder, 0777);
  unlink(link);
  if (symlink(arg[1], link) < 0) HELD("symlink");
  pid_t child = fork();
  if (child == 0)
    for (;;) renameat2(AT_FDCWD, folder, AT_FDCWD, link, RENAME_EXCHANGE);
  time_t until = time(NULL) + 3;
  bool seen = false;
  while (!seen && time(NULL) < until) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) continue;
    ssize_t got = read(fd, buffer, sizeof buffer);
    seen = got > 0 && memmem(buffer, (size_t)got, arg[2], strlen(arg[2]));
    close(fd);
  }
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  errno = ENOENT;
  if (!seen) HELD("the words");
  printf("%s done\n", word);
  return 0;
}

static int make_device(char **arg) {
  unlink(arg[0]);
  if (mknod(arg[0], S_IFBLK | 0600, (dev_t)strtoul(arg[1], NULL, 0)) < 0) HELD("mknod");
  int fd = open(arg[0], O_RDONLY);
  if (fd < 0) HELD("open");
  ssize_t got = read(fd, buffer, 4096);
  if (got < 0) HELD("read");
  if (memmem(buffer, (size_t)got, arg[2], strlen(arg[2]))) {
    printf("%s done\n", word);
    return 0;
  }
  errno = ENODEV;
  HELD("another disk");
}

/* ---- Too much of everything ---- */

static int forks(char **arg) {
  int most = atoi(arg[0]), count = 0;
  while (count < most) {
    pid_t child = fork();
    if (child < 0) break;
    if (child == 0)
      for (;;) pause();
    count++;
  }
  int error = errno;
  signal(SIGTERM, SIG_IGN);
  kill(-getpgrp(), SIGTERM);
  while (waitpid(-1, NULL, 0) > 0) {}
  if (count < most) {
    printf("%s held after %d processes: %s\n", word, count, strerror(error));
    return 1;
  }
  printf("%s done\n", word);
  return 0;
}

/* Memory that is written to, in MiB. Whoever is killed for it says nothing more. */
static int memory(char **arg) {
  for (int i = 0; i < atoi(arg[0]); i++) {
    char *more = malloc(1 << 20);
    if (!more) HELD("memory");
    memset(more, i + 1, 1 << 20);
  }
  printf("%s done\n", word);
  return 0;
}

/* A file of so many MiB. */
static int disk(char **arg) {
  int fd = open(arg[0], O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (fd < 0) HELD("open");
  memset(buffer, 7, sizeof buffer);
  int result = 0;
  for (int i = 0; i < atoi(arg[1]) * 16 && result == 0; i++)
    if (write(fd, buffer, sizeof buffer) < 0) result = end(errno, "write");
  if (result == 0 && fsync(fd) < 0) result = end(errno, "fsync");
  close(fd);
  unlink(arg[0]);
  if (result == 0) printf("%s done\n", word);
  return result;
}

/* So many empty files. */
static int inodes(char **arg) {
  mkdir(arg[0], 0700);
  if (chdir(arg[0]) < 0) HELD("chdir");
  char path[32];
  for (int i = 0; i < atoi(arg[1]); i++) {
    snprintf(path, sizeof path, "%d", i);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    if (fd < 0) {
      printf("%s held after %d files: %s\n", word, i, strerror(errno));
      return 1;
    }
    close(fd);
  }
  printf("%s done\n", word);
  return 0;
}

/* So many MiB on standard error. */
static int chatter(char **arg) {
  memset(buffer, 'x', sizeof buffer);
  for (int i = 0; i < atoi(arg[0]) * 16; i++)
    if (write(2, buffer, sizeof buffer) < 0) HELD("write");
  printf("%s done\n", word);
  return 0;
}

static const struct {
  const char *name;
  int arguments;
  int (*run)(char **);
} COMMANDS[] = {
    {"tcp", 2, tcp},           {"udp", 2, udp},         {"gateway", 1, gateway},     {"scan", 3, scan},
    {"ping", 1, ping},         {"name", 1, name},       {"rebind", 2, rebind},       {"flood", 3, flood},
    {"forge", 3, forge},       {"fragment", 2, fragment}, {"route", 3, route},       {"segment", 2, segment},
    {"protocol", 2, protocol}, {"arp", 1, arp},         {"mac", 2, mac},             {"dhcp", 0, dhcp},
    {"router", 1, router},     {"abstract", 1, abstract},     {"shm", 1, segment_of_memory}, {"signal", 1, signal_to}, {"see", 2, see},        {"read", 2, read_file},
    {"write", 1, write_file},  {"link", 2, link_file},  {"rename", 2, rename_file},  {"plant", 3, plant},
    {"race", 3, race},         {"device", 3, make_device}, {"forks", 1, forks},      {"memory", 1, memory},
    {"disk", 2, disk},         {"inodes", 2, inodes},   {"chatter", 1, chatter},
};

int main(int count, char **arg) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  signal(SIGPIPE, SIG_IGN);
  card = getenv("CARD") ? getenv("CARD") : "eth0";
  for (int i = 1; i + 1 < count;) {
    word = arg[i];
    bool known = false;
    for (size_t c = 0; c < sizeof COMMANDS / sizeof *COMMANDS; c++)
      if (strcmp(COMMANDS[c].name, arg[i + 1]) == 0) {
        int next = i + 2 + COMMANDS[c].arguments;
        if (next > count) break;
        known = true;
        /* One try must not spoil the next, whatever becomes of it. */
        pid_t child = fork();
        if (child == 0) {
          setpgid(0, 0);
          exit(COMMANDS[c].run(arg + i + 2));
        }
        int status = 0;
        waitpid(child, &status, 0);
        if (WIFSIGNALED(status)) printf("%s held killed: %s\n", word, strsignal(WTERMSIG(status)));
        i = next + 1;
        break;
      }
    if (!known) {
      fprintf(stderr, "%s: no such command, or not its arguments\n", arg[i + 1]);
      return 99;
    }
  }
  return 0;
}
