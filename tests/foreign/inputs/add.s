	.section .text
	.global add16
add16:
	add r24, r22
	adc r25, r23
	ret
