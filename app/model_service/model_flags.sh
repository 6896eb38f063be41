#!/bin/sh
# Prints the model server's flags for the models that MODEL_NAME names, separated by commas. The images start with it.
# For several models, or if a version is a canary (SERVICE_CANARY), it writes their list into a temporary file.
case $MODEL_NAME$SERVICE_CANARY in
    *,* | *=*)
        list=$(mktemp)
        {
            echo "model_config_list {"
            for name in $(echo "$MODEL_NAME" | tr ',' ' '); do
                policy=
                case ,$SERVICE_CANARY in
                    # The canary and the version beside it.
                    *,"$name"/* | *" $name"/*) policy="model_version_policy { latest { num_versions: 2 } }" ;;
                esac
                echo "  config { name: \"$name\" base_path: \"/models/$name\" model_platform: \"tensorflow\" $policy }"
            done
            echo "}"
        } > "$list"
        echo "--model_config_file=$list"
        ;;
    *)
        echo "--model_name=$MODEL_NAME --model_base_path=/models/$MODEL_NAME"
        ;;
esac
