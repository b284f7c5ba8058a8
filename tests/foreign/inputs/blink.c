typedef unsigned char uint8_t;
#define PORTB (*(volatile uint8_t *)0x25)
static uint8_t step(uint8_t led, int up) { return up ? (uint8_t)(led << 1 | led >> 7) : (uint8_t)(led >> 1 | led << 7); }
int main(void) { uint8_t led = 1; for (long n = 0;; n++) { PORTB = led; led = step(led, (n / 8) % 2 == 0); } }
