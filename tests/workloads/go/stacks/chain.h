/* The ends that are C lie in sections of their own, which the linker gives a start and an end. */
unsigned long innermost_start(void);
unsigned long innermost_end(void);
unsigned long outermost_start(void);
unsigned long outermost_end(void);

/* Leaks a block at the end of a chain of C, and says its bytes. */
long second_in_c(int depth);
/* Calls goCallback. */
long back_to_go(int depth);
/* Has a thread of C's call goInnermost until so much is leaked. */
long on_a_thread(long bytes);
