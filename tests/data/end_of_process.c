/* Preloaded into a program, tells when the process runs what libraries leave for its end. */
#include <unistd.h>

__attribute__((destructor)) static void at_the_end(void) {
    static const char told[] = "the libraries' end\n";
    if (write(2, told, sizeof told - 1) < 0) _exit(99);
}
