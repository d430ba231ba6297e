# What scripts/install and the Debian package share: the settings as systemd reads them, and what is still missing in them.
# scripts/install sources it, and scripts/deb puts it into the package's postinst.
#
# Expects `fail`, `prefix`, `root` (DESTDIR), and `tools`, the folder of make-kubeconfig and kubernetes-rbac.yaml. Nothing
# here changes anything.

etc=/etc/aci-sync
settings=$root$etc/aci-sync.env

# The version of systemd on this machine; without systemd a high one.
systemd_version() {
    local version
    version=$( (systemctl --version 2>/dev/null || true) | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
    echo "${version:-999}"
}

# Reads a settings file like systemd, into `names` and `values`. More complicated syntax is refused. Its text is not shown,
# because it could be a password.
declare -A values
names=()
read_settings() {
    local line number=0 comment="" single="^'([^']*)'\$" double='^"([^"\\]*)"$'
    names=() values=()
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        # A comment ends with its line. But before systemd 254 a backslash at its end continues it on the next line, and the
        # setting there would be ignored.
        if [[ $line =~ ^[[:space:]]*[#\;] ]]; then
            [[ $line != *\\ ]] && comment="" || comment=$number
            continue
        fi
        [ -z "$comment" ] || [[ $line =~ ^[[:space:]]*$ ]] || (($(systemd_version) >= 254)) ||
            fail "$1: line $comment is a comment that ends in a backslash, so this version of systemd ignores line $number; remove the backslash"
        comment=""
        [[ $line =~ ^[[:space:]]*(.*[^[:space:]])[[:space:]]*$ ]] || continue
        line=${BASH_REMATCH[1]}
        [[ $line =~ ^([A-Za-z_][A-Za-z0-9_]*)[[:space:]]*=[[:space:]]*(.*)$ ]] || fail "$1: line $number is not NAME=VALUE"
        local name=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
        if [[ $value =~ $single || $value =~ $double ]]; then
            value=${BASH_REMATCH[1]}
        elif [[ $value == *[\'\"\\]* ]]; then
            fail "$1: line $number contains a quote or a backslash; put the value of $name into single quotes"
        fi
        names+=("$name") && values[$name]=$value
    done <"$1"
}

has() { [ -n "${values[$1]:-}" ]; }
is_insecure() { [ "${values[ACI_SYNC_APIC_INSECURE]:-}" = true ]; }

report_missing() {
    # Secrets and settings are checked for presence only, and not shown.
    read_settings "$settings"
    credentials=/run/credentials/aci-sync.service
    missing=()
    if has ACI_SYNC_APIC_CERTIFICATE_DN || has ACI_SYNC_APIC_PRIVATE_KEY_FILE; then
        has ACI_SYNC_APIC_CERTIFICATE_DN || missing+=("ACI_SYNC_APIC_CERTIFICATE_DN, the certificate of the private key")
        has ACI_SYNC_APIC_PRIVATE_KEY_FILE || missing+=("ACI_SYNC_APIC_PRIVATE_KEY_FILE, the private key of the certificate")
        [ -s "$root$etc/apic-private-key.pem" ] || missing+=("the private key of the certificate:
      install -m 600 KEY.pem $root$etc/apic-private-key.pem")
        [ ! -s "$root$etc/apic-password" ] || missing+=("a choice between the certificate and the password:
      rm $root$etc/apic-password")
    else
        [ -s "$root$etc/apic-password" ] || missing+=("the APIC's password:
      systemd-ask-password 'APIC password:' | install -m 600 /dev/stdin $root$etc/apic-password")
        has ACI_USERNAME || missing+=("the APIC user, such as:
      echo ACI_USERNAME=aci-sync >>$settings")
    fi
    [ -s "$root$etc/kubeconfig" ] || missing+=("a kubeconfig:
      kubectl apply -f $tools/kubernetes-rbac.yaml
      (umask 077; $tools/make-kubeconfig >kubeconfig) && install -m 600 kubeconfig $root$etc/kubeconfig && rm kubeconfig")
    has ACI_APIC || has ACI_SYNC_APIC || missing+=("the APIC controllers, such as:
      echo ACI_APIC=apic1.example.net,apic2.example.net >>$settings")
    if has ACI_SYNC_APIC_CA && [ ! -s "$root$etc/apic-ca.pem" ] && [[ ${values[ACI_SYNC_APIC_CA]} == "$credentials"/* ]]; then
        missing+=("the CA that the settings name:
      install -m 600 CA.pem $root$etc/apic-ca.pem")
    fi
    for name in ACI_SYNC_APIC_CA ACI_SYNC_KUBECONFIG ACI_SYNC_PASSWORD_FILE ACI_SYNC_APIC_PRIVATE_KEY_FILE; do
        if [[ ${values[$name]:-} == "$etc"/* ]]; then
            missing+=("$name in $settings: the service cannot read files in $etc; see the comment in $settings")
        fi
    done

    if [ ${#missing[@]} -gt 0 ]; then
        echo "still missing:"
        printf '  - %s\n' "${missing[@]}"
    fi
    if ! has ACI_SYNC_APIC_CA && ! has ACI_SYNC_APIC_FINGERPRINT && ! is_insecure; then
        cat <<END_OF_TEXT
the system's root certificates decide whether the APIC's certificate is trusted. If its CA is not among them, add the CA:
      install -m 600 CA.pem $root$etc/apic-ca.pem
      echo ACI_SYNC_APIC_CA=$credentials/apic-ca.pem >>$settings
  or the certificate's fingerprint, after you have compared it on the APIC:
      openssl s_client -connect APIC:443 </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256
      echo ACI_SYNC_APIC_FINGERPRINT=... >>$settings
END_OF_TEXT
    fi

    echo "to look before it writes, with the settings in $etc: sudo $prefix/bin/aci-sync check, then sudo $prefix/bin/aci-sync plan"
}

report_start() {
    echo "to start it${missing[0]:+ when nothing is missing}: systemctl enable --now aci-sync"
}
