package main

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"
)

// quantities writes how quantities are read and printed.
func quantities() {
	fmt.Println("# Written by k8s.io/apimachinery v0.36.2: text, String() after ParseQuantity, canonical form (tab-separated).")
	fmt.Println("# Left out: 1000E, which upstream prints as 1, without its suffix.")
	for _, s := range []string{"0", "00", "-0", "1", "+5", "5.", "1000m", "1500m", "1.500", "1.5", "0.5", ".5", ".500", "010m", "100m", "1001m", "1e3", "1E3", "12e6", "1e-3", "1E", "100E", "1000E", "1000k", "1024", "1Ki", "1025Ki", "1024Ki", "1000Ki", "8Ki", "512Ki", "2048Mi", "64Mi", "1.5Gi", "0.5Gi", "0.1Ki", "0.0001Ki", "1.1Gi", "1.3Mi", "16Ei", "7Ei", "1n", "0.1n", "1.5n", "1500n", "0.000000001", "0.0000000001", "-0.0000000001", "-1.5", "-1Ki", "-100m", "500000000n", "1234567n", "10240Ki", "9223372036854775807", "9223372036854775808", "123456789012345678901234567", "3.14159265358979323846", "1e9", "1e10", "10e9", "100e-1", "100000000", "1000000", "12345678900000", "", "-", "+", ".", "a", "1a", "1Kib", "1ki", "1K", "1 Gi", "1e", "1ee3", "1.2.3", "--1", "1m5", "0.3Gi", "1023Mi", "1.000Ki", "999999999Gi", "0.9Ti", "100.035k", "0Ki", "0m", "0.0", "1e+3", "33e-2", "1.25e3", "5Gi", "1e21", "1e-12", "1.024Ki", "12.5m", "0.001", "0.0015"} {
		if s == "1000E" {
			// Printed as 1, without its suffix.
			continue
		}
		q, err := resource.ParseQuantity(s)
		if err != nil {
			fmt.Printf("%s\terror: %v\n", s, err)
			continue
		}
		n, suf := q.CanonicalizeBytes(nil)
		fmt.Printf("%s\t%s\t%s%s\n", s, q.String(), n, suf)
	}
}
